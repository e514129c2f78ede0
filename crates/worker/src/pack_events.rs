//! Packs that come and go: their files are fetched, what is remembered about runtimes is forgotten, versions are verified,
//! environments are built; and removed, with the files, when the pack is deleted.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{BusError, Delivery, Event, Subscription, ack, reject};
use attune_lifecycle::spawn_blocking;
use attune_model::message::{Envelope, MessageType, PackDeleted, PackRegistered};
use attune_model::{chain, is_plain_name};
use attune_runtime::advertise::Tier;
use attune_runtime::environment;
use serde::Deserialize as _;
use tokio::time::timeout;

use crate::capabilities::{self, Verify};
use crate::packs;
use crate::readiness::Part;
use crate::shared::Shared;

/// How long a build that is given up may take to give its claim back.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(1);

/// Follows pack events until the soft stop.
///
/// A message is answered when it is read, and worked on one after the other beside the reading: a build takes longer than a
/// broker waits for an answer. What is lost by a crash in between is made up for when an execution needs it.
pub(crate) async fn consume(shared: Arc<Shared>, mut packs: Subscription) {
    let mut waiting: VecDeque<PackEvent> = VecDeque::new();
    let mut current: Option<Work> = None;
    if shared.executor.advertised().tier == Tier::Database {
        waiting.push_back(PackEvent::Start);
    }
    loop {
        if current.is_none()
            && let Some(event) = waiting.pop_front()
        {
            let shared = shared.clone();
            current = Some(Box::pin(async move { handle(&shared, event).await }));
        }
        let event = tokio::select! {
            biased;
            () = shared.stop.soft().cancelled() => break,
            () = finished(&mut current) => {
                current = None;
                continue;
            }
            event = packs.next() => event,
        };
        match event {
            Event::Up => shared.readiness.up(Part::Packs),
            Event::Down | Event::Closed => shared.readiness.down(Part::Packs),
            Event::Delivery(delivery) => match read(&delivery) {
                Ok(event) => {
                    ack(delivery).await;
                    waiting.retain(|older| !event.replaces(older));
                    waiting.push_back(event);
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "pack event cannot be read");
                    reject(delivery).await;
                }
            },
        }
    }
    packs.end().await;
    if current.is_some() && timeout(GIVE_UP_LIMIT, finished(&mut current)).await.is_err() {
        tracing::debug!("work on a pack was dropped");
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn finished(work: &mut Option<Work>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// What a message says.
enum PackEvent {
    /// None: this is the start, and nobody else says what this host can run.
    Start,
    Registered(PackRegistered),
    Deleted(PackDeleted),
    Other(MessageType),
}

impl PackEvent {
    fn pack_ref(&self) -> Option<&str> {
        match self {
            Self::Registered(pack) => Some(&pack.pack_ref),
            Self::Deleted(pack) => Some(&pack.pack_ref),
            Self::Start | Self::Other(_) => None,
        }
    }

    /// Whether an older event about the same pack need not be worked on any more.
    fn replaces(&self, older: &Self) -> bool {
        self.pack_ref().is_some() && self.pack_ref() == older.pack_ref()
    }
}

fn read(delivery: &Delivery) -> Result<PackEvent, BusError> {
    let envelope: Envelope = serde_json::from_slice(&delivery.body).map_err(|source| BusError::Envelope { source })?;
    let message_type = envelope.message_type;
    match message_type {
        MessageType::PackRegistered => PackRegistered::deserialize(&envelope.payload).map(PackEvent::Registered),
        MessageType::PackDeleted => PackDeleted::deserialize(&envelope.payload).map(PackEvent::Deleted),
        other => Ok(PackEvent::Other(other)),
    }
    .map_err(|source| BusError::Payload { message_type, source })
}

async fn handle(shared: &Shared, event: PackEvent) {
    match event {
        PackEvent::Start => packs::build_environments(shared, None).await,
        PackEvent::Registered(pack) => {
            shared.runtimes.forget();
            if let Some(sync) = shared.pack_sync()
                && let Err(error) = sync.fetch(&pack.pack_ref).await
            {
                tracing::warn!(pack = pack.pack_ref, error = chain(&error), "pack could not be fetched");
            }
            let verified = capabilities::verify(shared, Verify::Named(&pack.runtime_names));
            tokio::select! {
                () = verified => {}
                () = shared.stop.soft().cancelled() => return,
            }
            packs::build_environments(shared, Some(&pack.pack_ref)).await;
        }
        PackEvent::Deleted(pack) => {
            shared.runtimes.forget();
            remove_environments(&shared.executor.config().runtime_envs_dir, &pack.pack_ref).await;
            if let Some(sync) = shared.pack_sync()
                && let Err(error) = sync.remove(&pack.pack_ref).await
            {
                tracing::warn!(pack = pack.pack_ref, error = chain(&error), "pack could not be removed");
            }
        }
        PackEvent::Other(message_type) => {
            tracing::warn!(?message_type, "message does not belong into the queue of packs");
        }
    }
}

/// Removes the environments of a pack, and nothing outside of `runtime_envs_dir`: a link is removed, not followed. Trees of
/// packages are large: everything else goes on meanwhile.
async fn remove_environments(runtime_envs_dir: &Path, pack_ref: &str) {
    if !is_plain_name(pack_ref) {
        tracing::warn!(pack_ref, "pack event ignored: the ref is not a plain name");
        return;
    }
    let folder = runtime_envs_dir.join(pack_ref);
    let path = folder.clone();
    let removed = spawn_blocking(move || match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => environment::remove(&path),
        Ok(_) => fs::remove_file(&path),
        Err(error) => Err(error),
    });
    match removed.await {
        Ok(Ok(())) => {
            tracing::info!(path = %folder.display(), "environments of a deleted pack removed");
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(Err(error)) => {
            tracing::warn!(path = %folder.display(), %error, "environments could not be removed");
        }
        Err(error) => tracing::error!(%error, "removing environments panicked; this is a bug of the worker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_environments_of_the_pack_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (envs, outside) = (dir.path().join("envs"), dir.path().join("outside"));
        for folder in [envs.join("demo/python/bin"), envs.join("other/python"), outside.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(outside.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, envs.join("linked")).unwrap();
        std::os::unix::fs::symlink(&outside, envs.join("demo/python/lib")).unwrap();
        for pack_ref in ["demo", "linked", "missing", "..", "../outside", "", "/"] {
            remove_environments(&envs, pack_ref).await;
        }
        assert!(!envs.join("demo").exists());
        assert!(fs::symlink_metadata(envs.join("linked")).is_err());
        assert!(envs.join("other/python").exists());
        assert!(outside.join("file").exists());
    }
    #[tokio::test]
    async fn everything_else_goes_on_while_environments_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("demo/python/bin")).unwrap();
        let removed = remove_environments(dir.path(), "demo");
        tokio::pin!(removed);
        tokio::select! {
            biased;
            () = &mut removed => panic!("nothing else had a turn"),
            () = std::future::ready(()) => {}
        }
        removed.await;
        assert!(!dir.path().join("demo").exists());
    }
}
