//! Packs that come and go: what is remembered about runtimes is forgotten, environments of deleted packs are removed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use attune_bus::{BusError, Delivery, Event, Subscription, ack, reject};
use attune_model::message::{Envelope, MessageType, PackDeleted, PackRegistered};
use serde::Deserialize as _;

use crate::capabilities::{self, Verify};
use crate::config::is_plain_name;
use crate::logs::chain;
use crate::readiness::Part;
use crate::shared::Shared;

/// Follows pack events until the soft stop.
pub(crate) async fn consume(shared: Arc<Shared>, mut packs: Subscription) {
    loop {
        let event = tokio::select! {
            () = shared.stop.soft().cancelled() => break,
            event = packs.next() => event,
        };
        match event {
            Event::Up => shared.readiness.up(Part::Packs),
            Event::Down => shared.readiness.down(Part::Packs),
            Event::Closed => break,
            Event::Delivery(delivery) => match read(&delivery) {
                Ok(event) => {
                    // Answered first: verifying takes longer than a broker likes to wait, and is repeated at every event.
                    ack(delivery).await;
                    tokio::select! {
                        () = shared.stop.soft().cancelled() => break,
                        () = handle(&shared, event) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "pack event cannot be read");
                    reject(delivery).await;
                }
            },
        }
    }
    packs.end().await;
}

/// What a message says.
enum PackEvent {
    Registered(PackRegistered),
    Deleted(PackDeleted),
    Other(MessageType),
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
        PackEvent::Registered(pack) => {
            shared.runtimes.forget();
            capabilities::verify(shared, Verify::Named(&pack.runtime_names)).await;
        }
        PackEvent::Deleted(pack) => {
            shared.runtimes.forget();
            remove_environments(&shared.executor.config().runtime_envs_dir, &pack.pack_ref);
        }
        PackEvent::Other(message_type) => {
            tracing::warn!(?message_type, "message does not belong into the queue of packs");
        }
    }
}

/// Removes the environments of a pack, and nothing outside of `runtime_envs_dir`: a link is removed, not followed.
fn remove_environments(runtime_envs_dir: &Path, pack_ref: &str) {
    if !is_plain_name(pack_ref) {
        tracing::warn!(pack_ref, "pack event ignored: the ref is not a plain name");
        return;
    }
    let folder = runtime_envs_dir.join(pack_ref);
    let removed = match fs::symlink_metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&folder),
        Ok(_) => fs::remove_file(&folder),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => {
            tracing::info!(path = %folder.display(), "environments of a deleted pack removed");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %folder.display(), %error, "environments could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_environments_of_the_pack_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (envs, outside) = (dir.path().join("envs"), dir.path().join("outside"));
        for folder in [envs.join("demo/python/bin"), envs.join("other/python"), outside.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(outside.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, envs.join("linked")).unwrap();
        std::os::unix::fs::symlink(&outside, envs.join("demo/python/lib")).unwrap();
        for pack_ref in ["demo", "linked", "missing", "..", "../outside", "", "/"] {
            remove_environments(&envs, pack_ref);
        }
        assert!(!envs.join("demo").exists());
        assert!(fs::symlink_metadata(envs.join("linked")).is_err());
        assert!(envs.join("other/python").exists());
        assert!(outside.join("file").exists());
    }
}
