//! A pack that comes through the API while its sensor is being started.

use std::sync::Arc;

use super::{Next, Supervisor};
use crate::target::Target;

impl Supervisor {
    /// Says why the start takes so long.
    pub(super) fn say_what_comes(&self, target: &Target) {
        if target.pack.as_ref().is_some_and(|pack| !pack.borrow().is_settled) {
            self.status.send_modify(|status| status.reason = Some("its pack is being fetched".to_owned()));
        }
    }

    /// Waits for the wish that knows the new pack.
    pub(super) async fn replaced(&mut self, target: &Arc<Target>) -> Next {
        let stop = self.context.stop.soft().clone();
        loop {
            if let Some(next) = self.superseded(target) {
                return next;
            }
            tokio::select! {
                () = stop.cancelled() => return Next::Stop,
                changed = self.wish.changed() => if changed.is_err() { return Next::Stop },
            }
        }
    }
}
