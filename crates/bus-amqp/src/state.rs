//! What is known about the connection, for readiness and metrics.

use std::time::Duration;

use tokio::time::Instant;

/// The connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Usable.
    Up {
        /// Since when.
        since: Instant,
    },
    /// Not there; being made again.
    Lost {
        /// Since when.
        since: Instant,
        /// Why.
        cause: String,
        /// How often it was tried again.
        attempts: u32,
    },
    /// Closed by us.
    Closed,
}

/// Why the broker takes no messages from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// In its words.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

/// How many consumers there should be, and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consumers {
    /// Asked for and not cancelled.
    pub wanted: usize,
    /// Confirmed by the broker on a channel that is alive.
    pub confirmed: usize,
    /// Since when they are not as many; none when they are.
    pub missing_since: Option<Instant>,
}

impl Consumers {
    /// One more or less is wanted or confirmed.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.missing_since = match self.missing_since {
            _ if self.confirmed == self.wanted => None,
            None => Some(Instant::now()),
            since => since,
        };
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpState {
    /// The connection.
    pub link: Link,
    /// Why the broker takes no messages from us now (it is short of memory or disk), if so.
    pub blocked: Option<Block>,
    /// What was agreed with the broker; none when heartbeats are off.
    pub heartbeat: Option<Duration>,
    /// For how long nothing was heard from the broker, seen every few seconds. Above one heartbeat the connection is
    /// doubtful, above two it is given up.
    pub silence: Duration,
    /// Consumers of this bus.
    pub consumers: Consumers,
    /// How often the connection was lost since the start.
    pub losses: u64,
}

impl AmqpState {
    /// Whether the connection is there and alive, and every consumer confirmed.
    pub fn is_ready(&self) -> bool {
        self.is_fresh() && self.consumers.confirmed == self.consumers.wanted
    }

    /// Whether the connection is there and the broker was heard within a heartbeat and a half.
    pub fn is_fresh(&self) -> bool {
        matches!(self.link, Link::Up { .. }) && self.heartbeat.is_none_or(|heartbeat| self.silence <= heartbeat * 3 / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn consumers_are_missing_since_the_first_of_them_went() {
        let mut consumers = Consumers::default();
        let add = |consumers: &mut Consumers| (consumers.wanted, consumers.confirmed) = (2, 2);
        consumers.change(add);
        assert_eq!(consumers.missing_since, None);
        tokio::time::advance(Duration::from_mins(1)).await;
        let went = Instant::now();
        consumers.change(|consumers| consumers.confirmed -= 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        consumers.change(|consumers| consumers.confirmed -= 1);
        consumers.change(|consumers| consumers.confirmed += 1);
        assert_eq!(consumers.missing_since, Some(went));
        consumers.change(|consumers| consumers.confirmed += 1);
        assert_eq!(consumers.missing_since, None);
    }
}
