//! Packs of sensors that tests write, and hosts that run them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use attune_testkit::Testimonies;

use crate::support::{BINARY, Installation, Program};

/// Says what it was given, and ends.
const ACTION: &str = "ref: zoo.note\nlabel: Note\nenabled: true\nrunner_type: shell\nentry_point: note.sh\n";

/// Pack `zoo`, while it is being written.
pub(crate) struct Zoo<'a> {
    installation: &'a Installation,
    source: PathBuf,
}

impl<'a> Zoo<'a> {
    pub(crate) fn new(installation: &'a Installation) -> Self {
        let source = installation.path("source/zoo");
        for name in ["actions", "sensors", "triggers", "rules"] {
            fs::create_dir_all(source.join(name)).unwrap();
        }
        fs::create_dir_all(installation.path("facts")).unwrap();
        let new = Self { installation, source };
        new.write("pack.yaml", "ref: zoo\nlabel: Zoo\nversion: 1.0.0\n");
        new.write("actions/note.yaml", ACTION);
        new.write("actions/note.sh", "#!/bin/sh\necho noted\n");
        new
    }

    /// Adds a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.source.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds sensor `zoo.NAME` with its trigger and a rule that waits for it.
    pub(crate) fn sensor(&self, name: &str, runner: &str, script: &str) {
        self.write(&format!("sensors/{name}"), script);
        let sensor = format!("entry_point: {name}\nrunner_type: {runner}\ntrigger_types:\n  - zoo.{name}\n");
        let rule = format!("trigger_ref: zoo.{name}\naction_ref: zoo.note\n");
        for (folder, rest) in [("sensors", sensor.as_str()), ("triggers", ""), ("rules", &rule)] {
            let file = format!("{folder}/{name}.yaml");
            self.write(&file, &format!("ref: zoo.{name}\nlabel: {name}\nenabled: true\n{rest}"));
        }
    }

    /// Loads it, after the core pack.
    pub(crate) fn load(&self) {
        self.installation.load(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/core"));
        self.reload();
    }

    /// Loads it again.
    pub(crate) fn reload(&self) {
        self.installation.load(self.source.to_str().unwrap());
    }
}

impl Installation {
    /// Starts a sensor host by the name that it has in images. It renews its lease of 3 s and looks for changes every second.
    pub(crate) fn host(&self, name: &str, change: impl FnOnce(&mut Command)) -> Program {
        let agent = self.path("attune-sensor-agent");
        if !agent.exists() {
            symlink(BINARY, &agent).unwrap();
        }
        let mut command = self.command_of(agent.to_str().unwrap(), &["--name", name]);
        command.env("ATTUNE__SENSOR__LEASE_TIME", "3").env("ATTUNE__SENSOR__RECONCILE_INTERVAL", "1");
        command.env("ATTUNE__SENSOR__HEARTBEAT_INTERVAL", "1").env("ATTUNE__SENSOR__BACKOFF_MIN", "1");
        command.env("ATTUNE__SENSOR__RUN_DIR", self.path(&format!("run-{name}")));
        change(&mut command);
        self.start_command(name, command)
    }

    /// What sensors wrote about their lives.
    pub(crate) fn testimonies(&self) -> Testimonies {
        Testimonies::in_folder(self.path("facts"))
    }

    /// The only text that a query yields, as soon as there is one for which `wanted` holds.
    pub(crate) async fn text(&self, what: &str, sql: &str, wanted: impl Fn(&str) -> bool) -> String {
        attune_testkit::eventually(what, async || {
            let texts = self.database.texts(sql).await?;
            texts.into_iter().next().filter(|text| wanted(text))
        })
        .await
    }
}
