//! What the bus, its owner task and its consumers have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use attune_bus::{BusError, QueueSpec};
use attune_lifecycle::{CancellationToken, Tasks};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits;
use crate::session::{Session, Target};
use crate::state::{AmqpState, Link};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) tasks: Tasks,
    /// Cancelled by `close`, and when the bus is dropped.
    pub(crate) closing: CancellationToken,
    /// The connection of the moment.
    pub(crate) session: watch::Sender<Option<Arc<Session>>>,
    pub(crate) state: watch::Sender<AmqpState>,
    /// Every queue that was declared, to be declared again when its consumer comes back.
    declared: Mutex<HashMap<String, QueueSpec>>,
}

impl Shared {
    pub(crate) fn new(target: Target, session: watch::Sender<Option<Arc<Session>>>, state: AmqpState) -> Self {
        Self {
            target,
            tasks: Tasks::default(),
            closing: CancellationToken::new(),
            session,
            state: watch::Sender::new(state),
            declared: Mutex::default(),
        }
    }

    /// The connection, if it is there or comes back in time. One that takes no messages counts when `blocked` may be.
    pub(crate) async fn available(&self, blocked: Blocked) -> Result<Arc<Session>, BusError> {
        let mut sessions = self.session.subscribe();
        let mut states = self.state.subscribe();
        let usable = async {
            loop {
                let session = sessions.borrow_and_update().clone();
                if let Some(session) = session.filter(|session| blocked == Blocked::Goes || !session.is_blocked()) {
                    return session;
                }
                let changed = tokio::select! {
                    changed = sessions.changed() => changed,
                    changed = states.changed() => changed,
                };
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(BusError::Closed),
            waited = timeout(limits::AVAILABLE, usable) => waited.map_err(|_elapsed| self.unavailable()),
        }
    }

    fn unavailable(&self) -> BusError {
        let state = self.state.borrow();
        BusError::Unavailable(match (&state.link, &state.blocked) {
            (Link::Up { .. }, Some(block)) => format!("the broker takes no messages: {}", block.reason),
            (Link::Up { .. }, None) => "the connection has just come back".to_owned(),
            (Link::Lost { cause, .. }, _) => format!("no connection to the broker: {cause}"),
            (Link::Closed, _) => "closed".to_owned(),
        })
    }

    pub(crate) fn remember(&self, spec: &QueueSpec) {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.name.clone(), spec.clone());
    }

    pub(crate) fn recall(&self, queue: &str) -> Option<QueueSpec> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned()
    }
}

/// Whether a connection on which nothing can be published is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    Goes,
    DoesNot,
}
