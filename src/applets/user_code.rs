//! From the settings about processes of user code to what these processes set up in themselves.

use std::sync::{Arc, OnceLock};

use attune_config::ChildConfig;
use attune_health::Health;
use attune_lifecycle::Tasks;
use attune_model::chain;
use attune_process::{Limits, Policy, Session, User};
use serde_json::{Value, json};

/// What a worker's actions or a sensor host's sensors get; all of them die with the agent.
pub(crate) fn policy(config: &ChildConfig) -> Policy {
    let ChildConfig {
        memory_bytes,
        cpu_time,
        open_files,
        processes,
        umask,
        nice,
        oom_score_adj,
        no_new_privileges,
        run_as,
        new_session,
        stop_signal: _,
        stop_grace: _,
    } = config;
    Policy {
        session: if *new_session { Session::New } else { Session::Inherited },
        limits: Limits {
            memory_bytes: *memory_bytes,
            // Part of a second is not counted by the kernel.
            cpu_seconds: cpu_time.map(|time| time.as_secs().max(1)),
            open_files: *open_files,
            processes: *processes,
            ..Limits::default()
        },
        umask: *umask,
        nice: *nice,
        oom_score_adj: *oom_score_adj,
        no_new_privileges: *no_new_privileges,
        user: run_as.as_ref().map(|user| User { uid: user.uid, gid: user.gid, groups: user.groups.clone() }),
        dies_with_agent: true,
        ..Policy::default()
    }
}

/// What children get where nothing is configured.
pub(crate) fn unconfigured() -> Policy {
    Policy { dies_with_agent: true, ..Policy::default() }
}

/// Finds out beside the start what children cannot have here: for the log, once, and for the status document.
pub(crate) fn tell_limits(policy: Policy, health: &Health, tasks: &Tasks) {
    let found = Arc::new(OnceLock::new());
    let shown = found.clone();
    health.section("children", move || shown.get().cloned().unwrap_or(Value::Null));
    tasks.spawn_attendant(|rest| async move {
        let refused = tokio::select! {
            () = rest.cancelled() => return,
            refused = attune_process::refused(&policy) => refused,
        };
        let refused = refused.unwrap_or_else(|error| vec![format!("no child can be started: {}", chain(&*error))]);
        let surroundings = attune_process::surroundings();
        let offered: Vec<_> = surroundings.iter().map(|(what, offered)| format!("{what}: {offered}")).collect();
        tracing::info!("{}", offered.join("; "));
        if !refused.is_empty() {
            tracing::warn!("asked for by the configuration and not to be had here: {}", refused.join("; "));
        }
        let mut section: serde_json::Map<_, _> =
            surroundings.into_iter().map(|(what, offered)| (what.to_owned(), offered.into())).collect();
        section.insert("refused".to_owned(), json!(refused));
        // Nobody else sets it.
        found.set(section.into()).unwrap_or_default();
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use attune_config::{MapSource, Sources, load_sensor, load_worker};

    use super::*;

    #[test]
    fn every_setting_reaches_the_process() {
        let environment = |section: &str| {
            [
                ("LIMITS__MEMORY", "512MiB"),
                ("LIMITS__CPU", "90s"),
                ("LIMITS__OPEN_FILES", "128"),
                ("LIMITS__PROCESSES", "64"),
                ("UMASK", "027"),
                ("NICE", "5"),
                ("OOM_SCORE_ADJ", "900"),
                ("NO_NEW_PRIVILEGES", "true"),
                ("RUN_AS", "1000:50:4,5"),
                ("NEW_SESSION", "true"),
                ("STOP_SIGNAL", "int"),
                ("STOP_GRACE", "10s"),
            ]
            .into_iter()
            .fold(
                MapSource::default()
                    .with("ATTUNE__DATABASE__URL", "postgresql://host/name")
                    .with("ATTUNE__MESSAGE_QUEUE__URL", "amqp://host")
                    .with("ATTUNE__SECURITY__JWT_SECRET", "a-secret-of-some-length-for-tokens"),
                |source, (name, value)| source.with(format!("ATTUNE__{section}__{name}"), value),
            )
        };
        let (worker, sensor) = (environment("WORKER"), environment("SENSOR"));
        let folder = Path::new("/nowhere");
        let worker =
            load_worker(Sources { environment: &worker, file: None, folder }, None).unwrap().config.worker.child;
        let sensor =
            load_sensor(Sources { environment: &sensor, file: None, folder }, None).unwrap().config.sensor.child;
        assert_eq!(worker, sensor);
        assert_eq!((worker.stop_signal, worker.stop_grace.as_secs()), (2, 10));
        let expected = Policy {
            session: Session::New,
            limits: Limits {
                memory_bytes: Some(512 << 20),
                cpu_seconds: Some(90),
                open_files: Some(128),
                processes: Some(64),
                core_bytes: Some(0),
            },
            umask: Some(0o27),
            nice: Some(5),
            oom_score_adj: Some(900),
            no_new_privileges: true,
            user: Some(User { uid: 1000, gid: 50, groups: vec![4, 5] }),
            dies_with_agent: true,
            launcher: attune_process::Launcher::default(),
        };
        assert_eq!(policy(&worker), expected);
    }
}
