//! Everything that can be set, in one place: the reference page and the search for typing errors are made from it.

use crate::files::{ENVIRONMENT_VARIABLE, FILE_VARIABLE};
use crate::key::Described;
use crate::notify::{NOTIFY_SOCKET, WATCHDOG_TIME};
use crate::sections::{
    agent, artifacts, database, executor, folders, health, log, message_queue, security, sensor, server, start, worker,
};

/// Keys that belong together.
pub(crate) struct Section {
    /// Heading of the reference page.
    pub(crate) title: &'static str,
    /// One sentence below it.
    pub(crate) doc: &'static str,
    /// The keys.
    pub(crate) keys: &'static [&'static dyn Described],
}

/// All sections in the order of the reference page.
pub(crate) const SECTIONS: &[Section] = &[
    Section { title: "worker", doc: "The action worker (`attune-agent`).", keys: worker::KEYS },
    Section { title: "sensor", doc: "The sensor agent (`attune-sensor-agent`).", keys: sensor::KEYS },
    Section { title: "database", doc: "The connection to PostgreSQL.", keys: database::KEYS },
    Section { title: "message_queue", doc: "The connection to RabbitMQ.", keys: message_queue::KEYS },
    Section { title: "Start", doc: "This key stands at the top of a file.", keys: start::KEYS },
    Section { title: "security", doc: "Keys that agents share with the platform's API.", keys: security::KEYS },
    Section {
        title: "Folders",
        doc: "These keys stand at the top of a file. Relative folders are meant from the working folder of the start.",
        keys: folders::KEYS,
    },
    Section { title: "agent", doc: "What a hub hands out to images without the volume.", keys: agent::KEYS },
    Section { title: "artifacts", doc: "How files and logs reach the platform.", keys: artifacts::KEYS },
    Section {
        title: "server",
        doc: "Where the platform's API is: agents call it there, the hub listens there.",
        keys: server::KEYS,
    },
    Section {
        title: "executor",
        doc: "The hub as the platform's executor. Agents do not read it.",
        keys: executor::KEYS,
    },
    Section { title: "health", doc: "Questions about the health of an agent.", keys: health::KEYS },
    Section { title: "log", doc: "How much is logged.", keys: log::KEYS },
];

/// The keys of all sections.
pub(crate) fn keys() -> impl Iterator<Item = &'static dyn Described> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().copied())
}

/// A variable that is read by its own name.
pub(crate) struct DirectVariable {
    /// Its name.
    pub(crate) name: &'static str,
    /// What holds without it.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) doc: &'static str,
}

/// The variable that overrides what a worker detects.
pub const WORKER_RUNTIMES: &str = "ATTUNE_WORKER_RUNTIMES";

/// The variable that overrides what a sensor agent detects.
pub const SENSOR_RUNTIMES: &str = "ATTUNE_SENSOR_RUNTIMES";

/// All variables that are read by their own name.
pub(crate) const DIRECT: &[DirectVariable] = &[
    DirectVariable {
        name: FILE_VARIABLE,
        default: "`config.yaml`",
        doc: "The base file. `--config` is stronger. One that does not exist is skipped with a warning.",
    },
    DirectVariable {
        name: ENVIRONMENT_VARIABLE,
        default: "`development`",
        doc: "Chooses `config.<environment>.yaml` in the working folder, which is stronger than the base file.",
    },
    DirectVariable {
        name: WORKER_RUNTIMES,
        default: "what is detected",
        doc: "Runtimes that the worker offers: a comma list. Also when it is empty, it decides alone. `native` is never detected and has to be named.",
    },
    DirectVariable { name: SENSOR_RUNTIMES, default: "what is detected", doc: "The same for the sensor agent." },
    DirectVariable {
        name: worker::NAME_VARIABLE,
        default: "`worker-` and the host's name",
        doc: "Name of the worker, weaker than `--name` and `worker.name`.",
    },
    DirectVariable {
        name: worker::TYPE_VARIABLE,
        default: "`local`",
        doc: "Kind of machine, weaker than `worker.worker_type`. Unknown words are ignored with a warning.",
    },
    DirectVariable {
        name: server::API_VARIABLE,
        default: "`http://{server.host}:{server.port}`",
        doc: "Base address of the platform's API, for the agents and for user code. `0.0.0.0` and `[::]` mean this machine.",
    },
    DirectVariable {
        name: folders::PACKS_VARIABLE,
        default: "`packs_base_dir`",
        doc: "Packs folder of the sensor agent.",
    },
    DirectVariable {
        name: folders::ENVIRONMENTS_VARIABLE,
        default: "`runtime_envs_dir`",
        doc: "Environments folder of the sensor agent.",
    },
    DirectVariable {
        name: message_queue::SENSORS_VARIABLE,
        default: "`message_queue.url`",
        doc: "The broker's address that sensors are told. The agent itself uses it where `message_queue.url` is missing.",
    },
    DirectVariable {
        name: "ATTUNE_AGENT_TOKEN",
        default: "not set",
        doc: "What `attune-agents fetch` and `attune-agent-wrapper.sh` send as `X-Agent-Token`.",
    },
    DirectVariable { name: "ATTUNE_AGENT_TOKEN_FILE", default: "not set", doc: "A file with that token instead." },
    DirectVariable {
        name: "SSL_CERT_FILE",
        default: "not set",
        doc: "PEM certificates that are trusted besides the built-in ones, for an API at an `https` address, downloads and `http-request`. Without it the first two trust the system's, too.",
    },
    DirectVariable {
        name: "ATTUNE_LOG_FORMAT",
        default: "`text`",
        doc: "How log lines look on standard error: `json` or `text`. `--log-format` is stronger.",
    },
    DirectVariable {
        name: "RUST_LOG",
        default: "`log.level`",
        doc: "What is logged: levels, and targets with levels, such as `info,attune_worker=debug`. Spans and fields are refused.",
    },
    DirectVariable {
        name: "NO_COLOR",
        default: "not set",
        doc: "Any value but the empty one switches colours off. Without a terminal there are none.",
    },
    DirectVariable {
        name: "PATH",
        default: "the customary folders",
        doc: "Where interpreters are looked for, before the usual places.",
    },
    DirectVariable {
        name: NOTIFY_SOCKET,
        default: "nobody is told",
        doc: "Set by systemd for units of `Type=notify`: the agent says when it is ready and when it stops.",
    },
    DirectVariable {
        name: WATCHDOG_TIME,
        default: "no signs of life",
        doc: "Set by systemd for units with `WatchdogSec=`, in microseconds; `WATCHDOG_PID` says for which process.",
    },
    DirectVariable { name: "TMPDIR", default: "`/tmp`", doc: "Temporary files." },
];

/// Keys of other services, or of no effect, that existing files hold: not used, and not taken for typing errors.
/// A name that ends in `.*` stands for everything below it, except what looks like a misspelt key of that section.
pub(crate) const UNUSED: &[(&str, &str)] = &[
    ("environment", "only `ATTUNE__ENVIRONMENT` chooses the environment"),
    ("sensor.service_name", "has no effect"),
    ("sensor.poll_interval", "nothing is polled"),
    ("sensor.polling_interval", "nothing is polled"),
    ("sensor.cleanup_interval", "nothing is polled"),
    ("sensor.sensor_timeout", "sensors run without a time limit"),
    ("database.log_statements", "statements are logged at level debug by `RUST_LOG=sqlx=debug`"),
    ("message_queue.*", "all names in the broker are fixed by the platform"),
    ("security.*", "of the API"),
    ("server.*", "of the API"),
    ("artifacts.*", "of the API"),
    ("log.*", "of other services"),
    ("api.*", "of the API"),
    ("executor.*", "of the platform's executor"),
    ("supervisor.*", "of the supervisor"),
    ("notifier.*", "of the notifier"),
    ("mcp.*", "of the MCP server"),
    ("web.*", "of the web interface"),
    ("agent.*", "of the API"),
    ("maintenance.*", "of the supervisor"),
    ("retention.*", "of the supervisor"),
];

/// Names that are easily mistaken for the right one, and the right one.
pub(crate) const MISTAKEN: &[(&str, &str)] = &[
    ("rabbitmq", "message_queue"),
    ("rabbitmq.url", "message_queue.url"),
    ("amqp", "message_queue"),
    ("amqp.url", "message_queue.url"),
    ("mq.url", "message_queue.url"),
    ("postgres", "database"),
    ("sensor.name", "sensor.worker_name"),
];
