//! Ends everything that runs under a session when the session was not renewed in time.

use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_process::boottime;
use tokio::time::sleep;

use super::{Session, Terms};

/// Sleep of the machine stops the runtime's clock and not the session's.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// Watches one session to its end; leaves early when `done` says that nothing runs any more.
pub(super) async fn fence(session: Session, terms: Terms, done: CancellationToken) {
    let mut is_watched = true;
    loop {
        let killed_at = session.killed_at();
        let ended_at = terms.ended_at(killed_at);
        let now = boottime();
        if now >= ended_at && !session.ended.is_cancelled() {
            tracing::error!(
                lease.seconds = terms.life.as_secs_f64(),
                "the lease of this host was not renewed in time: its sensors end before another host may start them"
            );
            session.ended.cancel();
        }
        if now >= killed_at {
            session.killed.cancel();
            return;
        }
        let next = if session.ended.is_cancelled() { killed_at } else { ended_at };
        tokio::select! {
            () = done.cancelled() => return,
            () = session.ended.cancelled(), if is_watched => is_watched = false,
            () = sleep(next.saturating_sub(now).min(LONGEST_NAP)) => {}
        }
    }
}
