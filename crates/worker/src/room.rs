//! How much is in hand at once.
//!
//! An execution takes a slot from its claim until its end is in the row, and a place until that end is told as well. So a broker
//! that takes its time to confirm does not keep the next action from running, and one that never does lets no more pile up
//! than there are places.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for each slot.
const PLACES_FOR_EACH: u32 = 2;

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    slots: Arc<Semaphore>,
    places: Arc<Semaphore>,
    place_count: u32,
}

/// What one execution takes.
#[derive(Debug)]
pub(crate) struct Room {
    /// While its row runs.
    pub(crate) slot: OwnedSemaphorePermit,
    /// While anything is to be done for it.
    pub(crate) place: OwnedSemaphorePermit,
}

impl Rooms {
    /// Room for `slots` executions that run.
    pub(crate) fn new(slots: u16) -> Self {
        let place_count = u32::from(slots) * PLACES_FOR_EACH;
        let permits = |count: u32| Arc::new(Semaphore::new(count.try_into().unwrap_or(Semaphore::MAX_PERMITS)));
        Self { slots: permits(u32::from(slots)), places: permits(place_count), place_count }
    }

    /// Waits for room. Cancel-safe.
    pub(crate) async fn enter(&self) -> Room {
        let place = acquire(&self.places).await;
        Room { slot: acquire(&self.slots).await, place }
    }

    /// Waits until nothing is in hand.
    pub(crate) async fn empty(&self) {
        // Nobody closes it.
        drop(self.places.acquire_many(self.place_count).await);
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match semaphore.clone().acquire_owned().await {
        Ok(permit) => permit,
        // Nobody closes it.
        Err(_closed) => std::future::pending().await,
    }
}
