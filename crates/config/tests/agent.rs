//! Loading the configuration of an agent from real files and a map of variables.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use attune_config::{
    Loaded, LogLevel, MapSource, Note, Rejected, SensorAgentConfig, Sources, Transport, WorkerAgentConfig, load_hub,
    load_sensor, load_worker,
};
use attune_model::status::WorkerType;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The least that an agent needs.
fn least() -> MapSource {
    MapSource::default()
        .with("ATTUNE__MESSAGE_QUEUE__URL", "amqp://attune:hunter2@rabbitmq:5672")
        .with("ATTUNE__SECURITY__JWT_SECRET", "hunter2")
}

fn worker(environment: &MapSource, folder: &Path) -> Result<Loaded<WorkerAgentConfig>, Rejected> {
    load_worker(Sources { environment, file: None, folder }, None)
}

fn sensor(environment: &MapSource, folder: &Path) -> Result<Loaded<SensorAgentConfig>, Rejected> {
    load_sensor(Sources { environment, file: None, folder }, None)
}

fn warnings(notes: &[Note]) -> Vec<&str> {
    notes
        .iter()
        .filter_map(|note| match note {
            Note::Warning(text) => Some(text.as_str()),
            Note::Info(_) => None,
        })
        .collect()
}

fn problems(rejected: &Rejected) -> Vec<String> {
    rejected.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn variables_alone_are_enough_and_the_rest_has_the_platforms_defaults() {
    let folder = folder(&[]);
    let Loaded { config, notes } = worker(&least(), folder.path()).unwrap();
    assert_eq!(warnings(&notes), Vec::<&str>::new());
    assert_eq!(config.platform.environment, "development");
    assert_eq!(config.platform.log_level, LogLevel::Info);
    assert_eq!(config.platform.database.url.expose(), "postgresql://postgres:postgres@localhost:5432/attune");
    assert_eq!(config.platform.database.schema, "attune");
    assert_eq!(config.platform.database.max_connections, 50);
    assert_eq!(config.platform.api_url, "http://127.0.0.1:8080");
    assert_eq!(config.platform.folders.packs, Path::new("/opt/attune/packs"));
    assert_eq!(config.platform.artifacts.transport, Transport::Auto);
    assert_eq!(config.worker.name, None);
    assert_eq!(config.worker.worker_type, WorkerType::Local);
    assert_eq!(config.worker.max_concurrent_tasks, 10);
    assert_eq!(config.worker.heartbeat_interval, Duration::from_secs(30));
    assert_eq!(config.worker.max_stdout_bytes, 10_485_760);
    let sensor = sensor(&least(), folder.path()).unwrap().config;
    assert_eq!(sensor.sensor.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(sensor.sensors_message_queue_url.expose(), "amqp://attune:hunter2@rabbitmq:5672");
}

#[test]
fn a_variable_is_stronger_than_the_file_of_the_environment_and_that_than_the_base_file() {
    let folder = folder(&[
        ("config.yaml", "worker: {name: base, max_concurrent_tasks: 3, heartbeat_interval: 5}\n"),
        ("config.test.yaml", "worker: {name: overlay, max_concurrent_tasks: 4}\n"),
    ]);
    let environment = least().with("ATTUNE__ENVIRONMENT", "test").with("ATTUNE__WORKER__NAME", "0012");
    let Loaded { config, notes } = worker(&environment, folder.path()).unwrap();
    assert_eq!(config.worker.name.as_deref(), Some("0012"), "text keeps its form");
    assert_eq!(config.worker.max_concurrent_tasks, 4);
    assert_eq!(config.worker.heartbeat_interval, Duration::from_secs(5));
    let used: Vec<&Note> = notes.iter().filter(|note| format!("{note:?}").contains("used")).collect();
    assert_eq!(used.len(), 2, "{notes:?}");
    let sources = Sources { environment: &environment, file: None, folder: folder.path() };
    let named = load_worker(sources, Some("line".to_owned())).unwrap().config;
    assert_eq!(named.worker.name.as_deref(), Some("line"));
}

#[test]
fn the_base_file_is_the_one_that_the_command_line_names_else_the_variable() {
    let folder = folder(&[
        ("config.yaml", "worker: {name: default}"),
        ("a.yaml", "worker: {name: a}"),
        ("b.yaml", "worker: {name: b}"),
    ]);
    let environment = least().with("ATTUNE_CONFIG", "a.yaml");
    assert_eq!(worker(&environment, folder.path()).unwrap().config.worker.name.as_deref(), Some("a"));
    let named = Some(Path::new("b.yaml"));
    let sources = Sources { environment: &environment, file: named, folder: folder.path() };
    assert_eq!(load_worker(sources, None).unwrap().config.worker.name.as_deref(), Some("b"));
    assert_eq!(worker(&least(), folder.path()).unwrap().config.worker.name.as_deref(), Some("default"));
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let folder = folder(&[(
        "config.yaml",
        "worker:\n  heartbeat_interval: 0\n  labels: [a]\n  taints:\n    - {effect: never}\ndatabase:\n  schema: 'a b'\n  min_connections: 60\nlog: loud\n",
    )]);
    let environment = MapSource::default()
        .with("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", "many")
        .with("ATTUNE__SECURITY__ENCRYPTION_KEY", "short")
        .with("ATTUNE__WORKER__NAME", OsString::from_vec(vec![0xff]))
        .with("ATTUNE__WORKER__PASS_ENV", "AWS_REGION,ATTUNE__DATABASE__URL");
    let rejected = worker(&environment, folder.path()).unwrap_err();
    let found = problems(&rejected);
    let file = folder.path().join("config.yaml");
    let expected = [
        format!("{}:9: log: must be a mapping, not a text", file.display()),
        format!("{}:7: database.schema: must be 1 to 63 letters", file.display()),
        format!("{}:8: database.min_connections: 60 is more than database.max_connections of 50", file.display()),
        "message_queue.url: is required: set ATTUNE__MESSAGE_QUEUE__URL".to_owned(),
        "ATTUNE__SECURITY__ENCRYPTION_KEY: must have at least 32 characters".to_owned(),
        "ATTUNE__WORKER__NAME: is not UTF-8".to_owned(),
        format!("{}:3: worker.labels: must be a mapping, not a list", file.display()),
        format!("{}:4: worker.taints: item 1 is not a taint", file.display()),
        "ATTUNE__WORKER__MAX_CONCURRENT_TASKS: must be a whole number from 1 to 10000, not \"many\"".to_owned(),
        format!("{}:2: worker.heartbeat_interval: must be a duration from 1 s to 60 s", file.display()),
        "ATTUNE__WORKER__PASS_ENV: ATTUNE__DATABASE__URL belongs to the agent".to_owned(),
    ];
    for text in &expected {
        assert!(found.iter().any(|problem| problem.starts_with(text)), "missing {text:?} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(rejected.to_string().starts_with("the configuration is not valid, 11 problems:\n  "));
}

#[test]
fn the_other_agents_section_stops_nobody() {
    let folder = folder(&[("config.yaml", "sensor: {heartbeat_interval: 0}\n")]);
    assert!(worker(&least(), folder.path()).is_ok());
    assert_eq!(problems(&sensor(&least(), folder.path()).unwrap_err()).len(), 1);
}

#[test]
fn a_secret_is_never_printed() {
    let folder = folder(&[]);
    let environment = MapSource::default()
        .with("ATTUNE__DATABASE__URL", "mysql://attune:hunter2@db/attune")
        .with("ATTUNE__MESSAGE_QUEUE__URL", "hunter2")
        .with("ATTUNE__SECURITY__ENCRYPTION_KEY", "hunter2")
        .with("ATTUNE__SECURITY__JWT_SECRET", "hunter2");
    let rejected = worker(&environment, folder.path()).unwrap_err();
    assert_eq!(rejected.problems.len(), 3);
    assert!(!format!("{rejected} {rejected:?} {environment:?}").contains("hunter2"));
    let loaded = worker(&least(), folder.path()).unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let folder = folder(&[("jwt", "hunter2\n"), ("config.yaml", "security: {jwt_secret_file: jwt}")]);
    let environment = MapSource::default().with("ATTUNE__MESSAGE_QUEUE__URL", "amqp://rabbitmq");
    let Loaded { config, notes } = worker(&environment, folder.path()).unwrap();
    assert_eq!(config.platform.security.jwt_secret.unwrap().expose(), "hunter2");
    assert_eq!(warnings(&notes), Vec::<&str>::new());
    let both = environment.clone().with("ATTUNE__SECURITY__JWT_SECRET", "other");
    let found = problems(&worker(&both, folder.path()).unwrap_err());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("ATTUNE__SECURITY__JWT_SECRET: is set, and so is "), "{found:?}");
    let missing = environment.with("ATTUNE__SECURITY__ENCRYPTION_KEY_FILE", "nowhere");
    let found = problems(&worker(&missing, folder.path()).unwrap_err());
    assert!(found[0].starts_with("ATTUNE__SECURITY__ENCRYPTION_KEY_FILE: \"nowhere\" cannot be read"), "{found:?}");
}

#[test]
fn unknown_names_are_warned_about_with_the_nearest_one() {
    let folder = folder(&[(
        "config.yaml",
        "wroker: {name: x}\nworker:\n  max_concurent_tasks: 5\nrabbitmq: {url: x}\nzebra: 1\n\
         security: {jwt_secert: x}\n",
    )]);
    let environment = least()
        .with("ATTUNE__WORKER__HEARTBEAT_INTREVAL", "5")
        .with("ATTUNE_WORKER__NAME", "x")
        .with("ATTUNE__ZEBRA", "x")
        .with("ATTUNE__WORKER", "x")
        .with("ATTUNE_AGENT_DIR", "/opt");
    let loaded = worker(&environment, folder.path()).unwrap();
    let file = folder.path().join("config.yaml");
    assert_eq!(
        warnings(&loaded.notes),
        [
            "variable ATTUNE__WORKER is not known and not used; it names a section, whose keys are set by ATTUNE__WORKER__KEY".to_owned(),
            "variable ATTUNE__WORKER__HEARTBEAT_INTREVAL is not known and not used; did you mean ATTUNE__WORKER__HEARTBEAT_INTERVAL?".to_owned(),
            "variable ATTUNE__ZEBRA is not known and not used".to_owned(),
            "variable ATTUNE_WORKER__NAME is not known and not used; did you mean ATTUNE__WORKER__NAME?".to_owned(),
            format!("{}:1: wroker is not known and not used; did you mean worker?", file.display()),
            format!("{}:3: worker.max_concurent_tasks is not known and not used; did you mean worker.max_concurrent_tasks?", file.display()),
            format!("{}:4: rabbitmq is not known and not used; did you mean message_queue?", file.display()),
            format!("{}:5: zebra is not known and not used", file.display()),
            format!("{}:6: security.jwt_secert is not known and not used; did you mean security.jwt_secret?", file.display()),
        ]
    );
}

#[test]
fn keys_of_existing_files_that_nobody_uses_are_named_and_cause_no_warning() {
    let folder = folder(&[(
        "config.yaml",
        "environment: docker\nsensor: {service_name: s, polling_interval: 1, cleanup_interval: 1, sensor_timeout: 3, poll_interval: 1}\n\
         message_queue: {exchange: attune, enable_dlq: true}\nsecurity: {jwt_access_expiration: 1, oidc: {enabled: false}}\n\
         server: {cors_origins: []}\nlog: {file: x}\nexecutor: {a: 1}\nretention: {b: 1}\nagent: {binary_dir: /x}\n\
         database: {log_statements: true}\nworker: {stream_logs: false}\nartifacts: {max_upload_size: 1}\n",
    )]);
    let environment = least().with("ATTUNE__SENSOR__POLL_INTERVAL", "5");
    let notes = worker(&environment, folder.path()).unwrap().notes;
    assert_eq!(warnings(&notes), Vec::<&str>::new());
    let told = notes.iter().filter_map(|note| match note {
        Note::Info(text) => text.strip_prefix("accepted and without effect on this agent: "),
        Note::Warning(_) => None,
    });
    let told: Vec<&str> = told.collect();
    assert_eq!(told.len(), 1);
    for name in
        ["ATTUNE__SENSOR__POLL_INTERVAL", "sensor.poll_interval", "message_queue.exchange", "database.log_statements"]
    {
        assert!(told[0].split(", ").any(|told| told == name), "{name}: {told:?}");
    }
}

#[test]
fn maps_are_put_together_entry_by_entry() {
    let folder = folder(&[
        ("config.yaml", "worker:\n  labels: {zone: a, disk: 0012}\n  capabilities: {gpu: {count: 1, kind: x}}\n"),
        ("config.development.yaml", "worker: {labels: {zone: b}}\n"),
    ]);
    let environment = least()
        .with("ATTUNE__WORKER__LABELS__Rack", "7")
        .with("ATTUNE__WORKER__CAPABILITIES__GPU__COUNT", "2")
        .with("ATTUNE__WORKER__CAPABILITIES__FAST", "true");
    let config = worker(&environment, folder.path()).unwrap().config.worker;
    let labels: Vec<(&str, &str)> = config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("disk", "0012"), ("rack", "7"), ("zone", "b")]);
    assert_eq!(
        serde_json::Value::Object(config.capabilities),
        serde_json::json!({"gpu": {"count": 2, "kind": "x"}, "fast": true})
    );
}

#[test]
fn files_that_are_not_there_are_skipped_and_broken_ones_are_refused() {
    let folder = folder(&[("config.development.yaml", "worker: [\n"), ("settings.toml", "a = 1")]);
    fs::create_dir(folder.path().join("mounted")).unwrap();
    let rejected = worker(&least(), folder.path()).unwrap_err();
    assert!(problems(&rejected)[0].contains("config.development.yaml:2"), "{rejected}");

    let overlay = least().with("ATTUNE__ENVIRONMENT", "none");
    let notes = worker(&overlay.clone().with("ATTUNE_CONFIG", "/nowhere/config.yaml"), folder.path()).unwrap().notes;
    assert_eq!(
        warnings(&notes),
        ["configuration file /nowhere/config.yaml (named by ATTUNE_CONFIG) skipped: it does not exist"]
    );
    let notes = worker(&overlay.clone().with("ATTUNE_CONFIG", "mounted"), folder.path()).unwrap().notes;
    assert!(warnings(&notes)[0].contains("it is a folder"), "{notes:?}");
    let rejected = worker(&overlay.with("ATTUNE_CONFIG", "settings.toml"), folder.path()).unwrap_err();
    assert!(problems(&rejected)[0].ends_with("only YAML and JSON are read"), "{rejected}");
}

#[test]
fn the_environment_is_one_word() {
    let folder = folder(&[]);
    for name in [OsString::from("../../etc/x"), OsString::from_vec(vec![0xff])] {
        let rejected = worker(&least().with("ATTUNE__ENVIRONMENT", name), folder.path()).unwrap_err();
        assert_eq!(rejected.problems[0].place, "ATTUNE__ENVIRONMENT");
    }
}

#[test]
fn weaker_and_stronger_variables_outside_the_scheme_take_their_places() {
    let folder = folder(&[("config.yaml", "packs_base_dir: packs\nruntime_envs_dir: /file/envs\n")]);
    let environment = least()
        .with("ATTUNE_WORKER_NAME", "weak")
        .with("ATTUNE_WORKER_TYPE", "container")
        .with("ATTUNE_API_URL", "https://api.example/")
        .with("ATTUNE_PACKS_BASE_DIR", "/variable/packs")
        .with("ATTUNE_RUNTIME_ENVS_DIR", "/variable/envs")
        .with("ATTUNE_MQ_URL", "amqp://sensors");
    let config = worker(&environment, folder.path()).unwrap().config;
    assert_eq!(config.worker.name.as_deref(), Some("weak"));
    assert_eq!(config.worker.worker_type, WorkerType::Container);
    assert_eq!(config.platform.api_url, "https://api.example");
    assert_eq!(config.platform.folders.packs, folder.path().join("packs"), "a relative folder is made absolute");
    let config = sensor(&environment, folder.path()).unwrap().config;
    assert_eq!(config.platform.folders.packs, Path::new("/variable/packs"));
    assert_eq!(config.platform.folders.runtime_envs, Path::new("/variable/envs"));
    assert_eq!(config.sensors_message_queue_url.expose(), "amqp://sensors");

    let stronger = environment
        .with("ATTUNE__WORKER__NAME", "strong")
        .with("ATTUNE__WORKER__WORKER_TYPE", "remote")
        .with("ATTUNE_API_URL", "");
    let config = worker(&stronger, folder.path()).unwrap().config;
    assert_eq!(config.worker.name.as_deref(), Some("strong"));
    assert_eq!(config.worker.worker_type, WorkerType::Remote);
    assert_eq!(config.platform.api_url, "http://127.0.0.1:8080");

    let odd = least().with("ATTUNE_WORKER_TYPE", "toaster");
    let loaded = worker(&odd, folder.path()).unwrap();
    assert_eq!(loaded.config.worker.worker_type, WorkerType::Local);
    assert!(warnings(&loaded.notes)[0].starts_with("ATTUNE_WORKER_TYPE is ignored"), "{:?}", loaded.notes);
}

#[test]
fn variables_of_their_own_name_are_known_by_one_wrong_letter_and_sections_by_their_keys() {
    let environment = least()
        .with("ATTUNE_WORKER_RUNTIME", "python")
        .with("ATTUNE_LOGFORMAT", "json")
        .with("ATTUNE_AGENT_URL", "http://other")
        .with("ATTUNE__ENVIROMENT", "test")
        .with("ATTUNE__WORKR", "x");
    let folder = folder(&[]);
    let notes = worker(&environment, folder.path()).unwrap().notes;
    let expected = [
        "variable ATTUNE__ENVIROMENT is not known and not used; did you mean ATTUNE__ENVIRONMENT?",
        "variable ATTUNE__WORKR is not known and not used; did you mean ATTUNE__WORKER__KEY?",
        "variable ATTUNE_LOGFORMAT is not known and not used; did you mean ATTUNE_LOG_FORMAT?",
        "variable ATTUNE_WORKER_RUNTIME is not known and not used; did you mean ATTUNE_WORKER_RUNTIMES?",
    ];
    assert_eq!(warnings(&notes), expected);
}

#[test]
fn an_entry_of_labels_that_cannot_be_is_named_by_its_own_variable() {
    let environment = least().with("ATTUNE__WORKER__LABELS__A__B", "c").with("ATTUNE__WORKER__LABELS__ZONE", "eu");
    let rejected = worker(&environment, folder(&[]).path()).unwrap_err();
    let expected =
        "ATTUNE__WORKER__LABELS__A__B: the name of an entry cannot hold `__`; set the whole map as JSON instead";
    assert_eq!(problems(&rejected), [expected]);
}

#[test]
fn a_hub_listens_where_agents_look_for_the_api() {
    let folder = folder(&[]);
    let load = |environment: &MapSource| load_hub(Sources { environment, file: None, folder: folder.path() });
    let config = load(&least()).unwrap().config;
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.executor.scheduled_timeout, Some(Duration::from_mins(5)));
    let local = least()
        .with("ATTUNE__SERVER__HOST", "localhost")
        .with("ATTUNE__SERVER__PORT", "9000")
        .with("ATTUNE__EXECUTOR__ENABLE_TIMEOUT_MONITOR", "false");
    let config = load(&local).unwrap().config;
    assert_eq!((config.listen.to_string().as_str(), config.executor.scheduled_timeout), ("127.0.0.1:9000", None));
    let rejected = load(&least().with("ATTUNE__SERVER__HOST", "hub.example")).unwrap_err();
    assert_eq!(problems(&rejected), ["ATTUNE__SERVER__HOST: must be an IP address of this machine, or `localhost`"]);
}

#[test]
fn sensor_deployments_may_set_either_the_variable_or_the_key() {
    let folder = folder(&[]);
    let least = || MapSource::default().with("ATTUNE__SECURITY__JWT_SECRET", "hunter2");
    for name in ["ATTUNE_MQ_URL", "ATTUNE__MESSAGE_QUEUE__URL"] {
        let config = sensor(&least().with(name, "amqp://u:p@broker"), folder.path()).unwrap().config;
        assert_eq!(config.platform.message_queue.url.expose(), "amqp://u:p@broker", "{name}");
        assert_eq!(config.sensors_message_queue_url.expose(), "amqp://u:p@broker", "{name}");
    }
    let rejected = sensor(&least().with("ATTUNE_MQ_URL", "http://:secret@broker"), folder.path()).unwrap_err();
    let problems = problems(&rejected);
    assert!(problems.iter().any(|problem| problem.contains("ATTUNE_MQ_URL")), "{problems:?}");
    assert!(!format!("{problems:?}").contains(":secret"));
    let with = |name: &str, value: &str| {
        let environment = least().with("ATTUNE_MQ_URL", "amqp://broker").with(name, value);
        sensor(&environment, folder.path()).unwrap().config
    };
    for name in ["ATTUNE_PACKS_BASE_DIR", "ATTUNE__PACKS_BASE_DIR"] {
        assert_eq!(with(name, "/p").platform.folders.packs, Path::new("/p"), "{name}");
    }
    for name in ["ATTUNE_RUNTIME_ENVS_DIR", "ATTUNE__RUNTIME_ENVS_DIR"] {
        assert_eq!(with(name, "/e").platform.folders.runtime_envs, Path::new("/e"), "{name}");
    }
    assert_eq!(with("ATTUNE_API_URL", "http://api:8080/").platform.api_url, "http://api:8080");
    assert_eq!(with("ATTUNE__SERVER__HOST", "api").platform.api_url, "http://api:8080");
    let settings = with("ATTUNE__SENSOR__LEASE_TIME", "12").sensor;
    assert_eq!((settings.lease_time.as_secs(), settings.backoff.1.as_secs()), (12, 60));
}

#[test]
fn a_section_about_downloads_without_a_token_is_refused() {
    let empty = folder(&[]);
    let load = |environment: &MapSource, folder: &Path| load_hub(Sources { environment, file: None, folder });
    assert!(load(&least(), empty.path()).unwrap().config.downloads.is_none());
    let section = folder(&[("config.yaml", "agent: {binary_dir: binaries}")]);
    let rejected = load(&least(), section.path()).unwrap_err();
    let expected = "agent.bootstrap_token: is required when there is a section `agent`: set \
         ATTUNE__AGENT__BOOTSTRAP_TOKEN, or ATTUNE__AGENT__BOOTSTRAP_TOKEN_FILE with the path of a file";
    assert_eq!(problems(&rejected), [expected]);
    let given = least().with("ATTUNE__AGENT__BOOTSTRAP_TOKEN", "one");
    let downloads = load(&given, section.path()).unwrap().config.downloads.unwrap();
    assert_eq!(downloads.bootstrap_token.expose(), "one");
    assert_eq!(downloads.binary_dir, section.path().join("binaries"));
    let downloads = load(&given, empty.path()).unwrap().config.downloads.unwrap();
    assert_eq!(downloads.binary_dir, Path::new("/opt/attune/agent"));
    assert!(worker(&least(), section.path()).is_ok(), "agents do not look at it");
}

#[test]
fn a_unit_of_work_ends_well_before_a_lease() {
    let folder = folder(&[]);
    let limit_ms = |lease: &str| {
        let variables = least().with("ATTUNE__SENSOR__LEASE_TIME", lease);
        sensor(&variables, folder.path()).unwrap().config.platform.database.unit_limit.as_millis()
    };
    assert_eq!([limit_ms("3"), limit_ms("30"), limit_ms("3600")], [750, 7500, 10_000]);
    let worker = worker(&least(), folder.path()).unwrap().config;
    assert_eq!(worker.platform.database.unit_limit, Duration::from_secs(10), "which has no lease");
}
