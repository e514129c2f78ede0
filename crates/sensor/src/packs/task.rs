//! One pack: fetched until it is here, replaced, removed.

use std::io;
use std::pin::pin;
use std::sync::{Arc, PoisonError};

use attune_http::PackError;
use attune_lifecycle::{Backoff, spawn_blocking};
use attune_model::chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Inner, PackState, Wish};

type State = Arc<watch::Sender<PackState>>;

impl Inner {
    /// Earlier lives may have been killed while they fetched.
    pub(super) async fn sweep(self: Arc<Self>) {
        let swept = spawn_blocking(move || self.sync.sweep()).await;
        if let Ok(Err(error)) = swept {
            tracing::debug!(%error, "rests of packs could not be looked for");
        }
    }

    /// Until the host stops, which no download delays.
    pub(super) async fn keep(self: Arc<Self>, pack_ref: String, mut wishes: watch::Receiver<Wish>, state: State) {
        let (shortest, longest) = self.timing.backoff;
        let mut backoff = Backoff::new(shortest, longest);
        let mut problem = None;
        while !self.stop.soft().is_cancelled() {
            let is_wanted = wishes.borrow_and_update().is_some();
            let wait = if is_wanted {
                match self.fetch_in_time(&pack_ref, &mut wishes, &state).await {
                    None => {
                        backoff.reset();
                        continue;
                    }
                    Some(Ok(())) => {
                        backoff.reset();
                        problem = None;
                        None
                    }
                    Some(Err(error)) => {
                        let new = chain(&error);
                        if problem.as_ref() != Some(&new) {
                            tracing::warn!(pack = pack_ref, error = new, "pack could not be fetched; trying again");
                            problem = Some(new);
                        }
                        Some(backoff.next_delay())
                    }
                }
            } else {
                self.remove(&pack_ref, &state).await;
                None
            };
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.soft().cancelled() => return,
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    backoff.reset();
                }
                () = again => {}
            }
        }
    }

    /// None when something else is wanted meanwhile, or the host stops.
    async fn fetch_in_time(
        self: &Arc<Self>,
        pack_ref: &str,
        wishes: &mut watch::Receiver<Wish>,
        state: &State,
    ) -> Option<Result<(), PackError>> {
        let patience = Instant::now() + self.timing.patience;
        let mut fetching = pin!(self.fetch(pack_ref, state));
        let mut is_patient = !state.borrow().is_settled;
        let fetched = loop {
            tokio::select! {
                biased;
                () = self.stop.soft().cancelled() => return None,
                changed = wishes.changed() => return changed.err().map(|_closed| Ok(())),
                fetched = &mut fetching => break fetched,
                () = sleep_until(patience), if is_patient => {
                    is_patient = false;
                    self.settle(state, Some("it is still being fetched".to_owned()));
                }
            }
        };
        if wishes.has_changed().unwrap_or(false) {
            return None;
        }
        let problem = fetched.as_ref().err().map(|error| chain(error));
        self.settle(state, problem);
        Some(fetched)
    }

    fn settle(&self, state: &State, problem: Option<String>) {
        let is_new = state.send_if_modified(|state| {
            let is_new = !state.is_settled || state.problem != problem;
            (state.is_settled, state.problem) = (true, problem);
            is_new
        });
        if is_new {
            self.look_again.notify_one();
        }
    }

    async fn fetch(self: &Arc<Self>, pack_ref: &str, state: &State) -> Result<(), PackError> {
        let _turn = self.at_once.acquire().await;
        // A folder that the API has marked meanwhile is the API's.
        if self.sync.is_shared() {
            return self.look_for(pack_ref, state);
        }
        tracing::debug!(pack = pack_ref, "fetching a pack");
        let staged = self.sync.stage(pack_ref).await?;
        let (inner, state, name) = (self.clone(), state.clone(), pack_ref.to_owned());
        // From here on it is done as a whole, whoever waits for it.
        let putting = spawn_blocking(move || {
            if staged.is_in_place() {
                state.send_modify(|state| state.is_here = true);
                return Ok(());
            }
            let _alone = inner.places.write().unwrap_or_else(PoisonError::into_inner);
            if inner.sync.is_shared() {
                return inner.look_for(&name, &state);
            }
            staged.put()?;
            tracing::info!(pack = name, "pack fetched");
            state.send_modify(|state| {
                state.generation += 1;
                state.is_here = true;
            });
            inner.look_again.notify_one();
            Ok(())
        });
        putting.await.unwrap_or_else(|panicked| {
            Err(PackError::Io { what: "replace the pack", source: io::Error::other(panicked) })
        })
    }

    /// What the API has marked is as it is there.
    fn look_for(&self, pack_ref: &str, state: &State) -> Result<(), PackError> {
        let is_here = self.sync.has(pack_ref);
        state.send_modify(|state| state.is_here = is_here);
        if is_here { Ok(()) } else { Err(PackError::Unknown(pack_ref.to_owned())) }
    }

    async fn remove(&self, pack_ref: &str, state: &State) {
        let is_here = state.borrow().is_here;
        if !is_here || self.sync.is_shared() {
            return;
        }
        match self.sync.remove(pack_ref).await {
            Ok(()) => tracing::info!(pack = pack_ref, "deleted pack removed"),
            Err(error) => tracing::warn!(pack = pack_ref, error = chain(&error), "pack could not be removed"),
        }
        let is_here = self.sync.has(pack_ref);
        state.send_modify(|state| {
            *state = PackState { generation: state.generation + 1, is_here, ..PackState::default() }
        });
    }
}
