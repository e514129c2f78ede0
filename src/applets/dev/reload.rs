//! Brings what changed on disk into the system, and says so.

use std::sync::Arc;

use attune_hub::HubHandle;
use attune_lifecycle::Stop;

use super::console::{Console, Kind, Line};
use super::data::Data;
use super::packs::{Before, PackSet, Step, summary};
use super::watch::{Change, Watch};

/// Applies packs to the hub.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) packs: PackSet,
    pub(super) data: Arc<Data>,
    pub(super) hub: HubHandle,
    pub(super) console: Console,
}

impl Loader {
    /// Looks at the folders and applies what is new or different.
    pub(super) async fn apply(&mut self, change: &Change) {
        let (steps, lines) = self.packs.refresh(change);
        for line in lines {
            self.console.say(line).await;
        }
        for step in steps {
            self.take(step).await;
        }
    }

    async fn take(&self, step: Step) {
        match step {
            Step::Use { content, before } => {
                let pack_ref = &content.pack.r#ref;
                if let Err(error) = self.link(&content) {
                    self.fail(pack_ref, &error).await;
                    return;
                }
                match self.hub.packs().register(&content.pack).await {
                    Ok(changes) => {
                        let status = if before == Before::Nothing { "loaded" } else { "reloaded" };
                        let line = Line::new(Kind::Pack, pack_ref, status)
                            .text(summary(&content))
                            .field("path", content.path.display().to_string())
                            .field("version", content.pack.version.clone());
                        self.console.say(line).await;
                        for skipped in changes.skipped {
                            let line = Line::new(Kind::Error, skipped.r#ref, "skipped").text(skipped.reason.clone());
                            self.console.say(line.field("message", skipped.reason)).await;
                        }
                        self.check_timers(&content).await;
                    }
                    Err(error) => self.fail(pack_ref, &error).await,
                }
            }
            Step::Remove { pack_ref } => {
                if let Err(error) = self.hub.packs().remove(&pack_ref).await {
                    self.fail(&pack_ref, &error).await;
                }
            }
        }
    }

    /// Nobody would find a wrong time in the log of a sensor that runs well.
    async fn check_timers(&self, content: &attune_packs::PackContent) {
        for rule in content.pack.rules.iter().filter(|rule| rule.enabled) {
            if let Err(error) = attune_timer_sensor::check(&rule.trigger_ref, &rule.trigger_params) {
                let text = format!("its timer never fires, correct trigger_params: {error}");
                let line = Line::new(Kind::Error, rule.r#ref.clone(), "failed").text(&text);
                self.console.say(line.field("message", text)).await;
            }
        }
    }

    fn link(&self, content: &attune_packs::PackContent) -> Result<(), super::data::DataError> {
        if content.is_builtin() {
            return Ok(());
        }
        self.data.link_pack(&content.pack.r#ref, &content.path)
    }

    async fn fail(&self, pack_ref: &str, error: &(dyn std::error::Error + Sync)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.console.say(Line::new(Kind::Error, pack_ref, "failed").text(&text).field("message", text)).await;
    }

    /// Applies changes until the soft stop.
    pub(super) async fn follow(mut self, mut watch: Watch, stop: Stop) {
        loop {
            let change = tokio::select! {
                change = watch.next() => change,
                () = stop.soft().cancelled() => return,
            };
            match change {
                Some(change) => self.apply(&change).await,
                None => return,
            }
        }
    }
}
