//! Which executions this process has in hand, and which of them are to be cancelled.
//!
//! A cancel can overtake the dispatch that it belongs to, so one for an unknown execution is remembered: for a limited
//! time and up to a limited number, because most of them are for executions that have ended already.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::ExecutionId;
use tokio::time::Instant;

/// How long a cancel waits for its dispatch: twice the time that a dispatch may wait in its queue.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Most cancels that wait. The oldest is dropped for a new one; its row then ends as its action does.
const REMEMBERED_AT_MOST: usize = 10_000;

/// The executions in hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancellations {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    in_hand: HashMap<ExecutionId, CancellationToken>,
    early: VecDeque<(ExecutionId, Instant)>,
}

impl Cancellations {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an execution in hand; none when it is in hand already. A cancel that came before counts.
    pub(crate) fn take(&self, execution: ExecutionId) -> Option<InHand> {
        let mut state = self.state();
        if state.in_hand.contains_key(&execution) {
            return None;
        }
        let cancel = CancellationToken::new();
        if let Some(place) = state.early.iter().position(|(early, _)| *early == execution) {
            let known = state.early.remove(place);
            if known.is_some_and(|(_, since)| since.elapsed() < REMEMBERED_FOR) {
                cancel.cancel();
            }
        }
        state.in_hand.insert(execution, cancel.clone());
        Some(InHand { execution, cancel, all: self.clone() })
    }

    /// Whether an execution is in hand.
    pub(crate) fn has(&self, execution: ExecutionId) -> bool {
        self.state().in_hand.contains_key(&execution)
    }

    /// Cancels an execution, now or when it comes.
    pub(crate) fn cancel(&self, execution: ExecutionId) -> Cancelled {
        let mut state = self.state();
        if let Some(cancel) = state.in_hand.get(&execution) {
            cancel.cancel();
            return Cancelled::InHand;
        }
        while state.early.front().is_some_and(|(_, since)| since.elapsed() >= REMEMBERED_FOR) {
            state.early.pop_front();
        }
        if !state.early.iter().any(|(early, _)| *early == execution) {
            if state.early.len() >= REMEMBERED_AT_MOST {
                state.early.pop_front();
            }
            state.early.push_back((execution, Instant::now()));
        }
        Cancelled::Remembered
    }
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// The execution knows.
    InHand,
    /// It will know when it comes.
    Remembered,
}

/// An execution in hand, until it is dropped.
#[derive(Debug)]
pub(crate) struct InHand {
    execution: ExecutionId,
    cancel: CancellationToken,
    all: Cancellations,
}

impl InHand {
    /// Which.
    pub(crate) fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// Becomes cancelled with the execution.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.all.state().in_hand.remove(&self.execution);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_cancel_reaches_what_is_in_hand_and_nothing_else() {
        paused().block_on(async {
            let all = Cancellations::default();
            let one = all.take(ExecutionId(1)).unwrap();
            let two = all.take(ExecutionId(2)).unwrap();
            assert!(all.take(ExecutionId(1)).is_none(), "a duplicate");
            assert_eq!(all.cancel(ExecutionId(1)), Cancelled::InHand);
            assert!(one.cancel().is_cancelled() && !two.cancel().is_cancelled());
            drop(one);
            assert!(!all.take(ExecutionId(1)).unwrap().cancel().is_cancelled());
        });
    }

    #[test]
    fn a_cancel_waits_for_its_dispatch_but_not_for_ever() {
        paused().block_on(async {
            let all = Cancellations::default();
            assert_eq!(all.cancel(ExecutionId(1)), Cancelled::Remembered);
            assert_eq!(all.cancel(ExecutionId(2)), Cancelled::Remembered);
            assert!(all.take(ExecutionId(1)).unwrap().cancel().is_cancelled());
            assert!(!all.take(ExecutionId(1)).unwrap().cancel().is_cancelled(), "it counts once");
            tokio::time::advance(REMEMBERED_FOR).await;
            assert!(!all.take(ExecutionId(2)).unwrap().cancel().is_cancelled());
        });
    }

    #[test]
    fn cancels_that_nobody_wants_do_not_pile_up() {
        paused().block_on(async {
            let all = Cancellations::default();
            for id in 0..=REMEMBERED_AT_MOST {
                all.cancel(ExecutionId(i64::try_from(id).unwrap()));
            }
            all.cancel(ExecutionId(5));
            assert_eq!(all.state().early.len(), REMEMBERED_AT_MOST);
            assert!(!all.take(ExecutionId(0)).unwrap().cancel().is_cancelled(), "the oldest went");
            tokio::time::advance(REMEMBERED_FOR).await;
            all.cancel(ExecutionId(-1));
            assert_eq!(all.state().early.len(), 1);
        });
    }
}
