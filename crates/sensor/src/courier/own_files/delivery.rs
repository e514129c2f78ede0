//! Looks for files that have changed, and sends them.

use std::collections::HashMap;
use std::io;

use attune_http::UPLOAD_LIMIT_BYTES;
use attune_lifecycle::{Backoff, CancellationToken, spawn_blocking};
use attune_model::chain;
use attune_store::SensorFile;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::{OwnFile, Settled, Times, Turn};
use crate::courier::stamp::opened;
use crate::courier::{Courier, Trouble};

/// Files under way at once.
const AT_ONCE: usize = 4;

impl Courier {
    /// What the sensors that ended have written. Until `done`, and one attempt then.
    pub(in crate::courier) async fn deliver_own_files(&self, done: &CancellationToken) {
        let looked = CancellationToken::new();
        let look = async {
            self.look_for_changes(done).await;
            looked.cancel();
        };
        tokio::join!(look, self.send_own_files(&looked));
    }

    async fn look_for_changes(&self, done: &CancellationToken) {
        let mut backoff = self.backoff();
        loop {
            let ends = done.is_cancelled();
            let looked = self.look().await;
            let wait = match looked {
                Ok(()) => {
                    backoff.reset();
                    None
                }
                Err(trouble) => {
                    if backoff.attempts() == 0 {
                        tracing::warn!(error = chain(&trouble), "files that sensors wrote themselves wait");
                    }
                    Some(backoff.next_delay())
                }
            };
            if ends {
                return;
            }
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => self.outbox.process_ended().await,
                }
            };
            tokio::select! {
                () = done.cancelled() => {}
                () = again => {}
            }
        }
    }

    /// Finds out what processes that have ended have left.
    async fn look(&self) -> Result<(), Trouble> {
        let ended = self.outbox.begin_look();
        let found = self.changed_files(&ended).await;
        let sensors: Vec<String> = ended.keys().cloned().collect();
        self.outbox.end_look(ended, found)?;
        for sensor_ref in sensors {
            self.outbox.settle(&sensor_ref).await;
        }
        Ok(())
    }

    async fn changed_files(&self, ended: &Times) -> Result<Vec<(String, OwnFile)>, Trouble> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let owners: Vec<String> = ended.keys().cloned().collect();
        let mut files = self.files_of(&owners).await?;
        files.retain(|file| !self.outbox.is_log(&file.file_path));
        for owner in &owners {
            let is_known = |path: &String| files.iter().any(|file| file.owner == *owner && file.file_path == *path);
            self.outbox.state().own.note(owner, |account| account.settled.retain(|path, _| is_known(path)));
        }
        let (artifacts, ended) = (self.artifacts.clone(), ended.clone());
        let look = move || {
            let changed = |file: SensorFile| {
                let SensorFile { id, owner, file_path: path, size_bytes: there } = file;
                let (_, stamp) = opened(&artifacts, &path).ok().flatten()?;
                // What this host has settled already is left out of these when they are entered.
                let is_ours = there.is_none() || stamp.is_after(*ended.get(&owner)?);
                (stamp.size > 0 && is_ours).then_some((path, OwnFile { owner, id, stamp, there, turn: Turn::Waits }))
            };
            files.into_iter().filter_map(changed).collect()
        };
        spawn_blocking(look).await.map_err(|error| Trouble::Read(io::Error::other(error)))
    }

    /// Until `done`, and one attempt for each file then.
    async fn send_own_files(&self, done: &CancellationToken) {
        let mut sends = FuturesUnordered::new();
        let mut resting: HashMap<String, (Instant, Backoff)> = HashMap::new();
        let mut ends = false;
        loop {
            let now = Instant::now();
            let may = |path: &str| ends || resting.get(path).is_none_or(|(until, _)| *until <= now);
            while sends.len() < AT_ONCE
                && let Some((path, file)) = self.outbox.take_file(may)
            {
                let is_retry = resting.contains_key(&path);
                sends.push(self.sent_file(path, file, is_retry));
            }
            if ends && sends.is_empty() {
                return;
            }
            let wake = resting.values().map(|(until, _)| *until).filter(|until| *until > now).min();
            tokio::select! {
                () = done.cancelled(), if !ends => ends = true,
                Some((path, file, outcome)) = sends.next() => match outcome {
                    Ok(()) => {
                        resting.remove(&path);
                        self.outbox.end_file(&path, true);
                        self.outbox.settle(&file.owner).await;
                    }
                    Err(trouble) => {
                        let (until, backoff) = resting.entry(path.clone()).or_insert_with(|| (now, self.backoff()));
                        if backoff.attempts() == 0 || ends {
                            tracing::warn!(path, error = chain(&trouble), "a file that a sensor wrote itself waits");
                        }
                        *until = Instant::now() + backoff.next_delay();
                        // What fails at the end is left under way: nobody takes it again.
                        if !ends {
                            self.outbox.end_file(&path, false);
                        }
                    }
                },
                () = self.outbox.file_waits() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    async fn sent_file(&self, path: String, file: OwnFile, is_retry: bool) -> (String, OwnFile, Result<(), Trouble>) {
        let outcome = self.send_file(&path, &file, is_retry).await;
        (path, file, outcome)
    }

    async fn send_file(&self, path: &str, file: &OwnFile, is_retry: bool) -> Result<(), Trouble> {
        if is_retry && self.is_superseded(path, file).await? {
            tracing::warn!(
                path,
                "a file that a sensor wrote itself was delivered by another host meanwhile, or is not kept"
            );
            self.outbox.is_settled(&file.owner, path, Settled { stamp: file.stamp, ours: None, is_refused: false });
            return Ok(());
        }
        let (artifacts, name) = (self.artifacts.clone(), path.to_owned());
        let opened = spawn_blocking(move || opened(&artifacts, &name)).await;
        let (content, stamp) = match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(path, %error, "a file of a sensor cannot be read");
                return Ok(());
            }
        };
        if stamp.size > UPLOAD_LIMIT_BYTES {
            let size = stamp.size;
            tracing::warn!(path, "a file of a sensor has {size} bytes; the API takes at most {UPLOAD_LIMIT_BYTES}");
            return Ok(());
        }
        let settled = match self.uploads.put_file(path, content, stamp.size).await {
            Ok(()) => {
                self.outbox.add_size((file.id, stamp.size));
                Settled { stamp, ours: Some(stamp.size), is_refused: false }
            }
            Err(error) if error.is_refusal() => {
                tracing::warn!(path, error = chain(&error), "the API refuses a file of a sensor");
                Settled { stamp, ours: self.ours(&file.owner, path), is_refused: true }
            }
            Err(error) => return Err(Trouble::Api(error)),
        };
        self.outbox.is_settled(&file.owner, path, settled);
        Ok(())
    }

    /// Whether the platform has something else of it than when it was looked at, and not from here; or its version is gone.
    async fn is_superseded(&self, path: &str, file: &OwnFile) -> Result<bool, Trouble> {
        let rows = self.files_of(std::slice::from_ref(&file.owner)).await?;
        let Some(row) = rows.into_iter().find(|row| row.id == file.id) else { return Ok(true) };
        Ok(row.size_bytes != file.there && row.size_bytes != self.ours(&file.owner, path))
    }

    fn ours(&self, owner: &str, path: &str) -> Option<u64> {
        self.outbox.state().own.settled(owner, path)?.ours
    }
}
