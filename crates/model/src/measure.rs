//! What agents count while they work, for whoever turns it into metrics.
//!
//! A measure is a small copy without names or ids: what is counted has bounded kinds by construction, and counting costs
//! no allocation. It reaches the counters through [`Observer::measure`](crate::activity::Observer::measure).

use std::time::Duration;

use crate::status::ExecutionStatus;

/// Something that is counted or timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// How many executions the worker runs at once.
    Slots(u16),
    /// A dispatched execution was claimed, or was not. `took` includes repeated attempts.
    Claim {
        /// What became of it.
        answer: ClaimAnswer,
        /// From the first attempt to the answer.
        took: Duration,
    },
    /// A claimed execution is in the hands of the worker from now on.
    ExecutionStarted,
    /// … and is not any more. Each start has one, also when a bug panics in between.
    ExecutionLeft,
    /// The end of an execution is in its row.
    ExecutionEnded {
        /// As the row says.
        status: ExecutionStatus,
        /// From the claim to the written end; none when an earlier life of the worker had claimed it.
        took: Option<Duration>,
    },
    /// An end was written, or given up. `took` includes repeated attempts.
    Finish {
        /// What became of it.
        answer: FinishAnswer,
        /// From the first attempt to the answer.
        took: Duration,
    },
    /// Messages could not be published and are tried again.
    PublishRetried,
    /// A result was put aside on disk because storage was away.
    ResultSpooled,
    /// A file of an execution was refused by the API for good.
    FileRefused,
    /// A cancel came.
    Cancel(CancelTarget),
    /// The agent's row was marked as alive, or could not be.
    Heartbeat {
        /// Whether it was written.
        success: Success,
        /// How long the store took.
        took: Duration,
    },
    /// A child process was started.
    ChildStarted {
        /// What the start took.
        took: Duration,
    },
    /// … or could not be started.
    ChildNotStarted,
    /// Output of a child went beyond what is kept.
    OutputDropped {
        /// How much.
        bytes: u64,
    },
    /// A sensor went from one state to another.
    SensorMoved {
        /// None: it was not known before.
        from: Option<SensorState>,
        /// None: it is not known any more.
        to: Option<SensorState>,
    },
    /// A sensor that had been started before is started again.
    SensorRestarted(RestartCause),
    /// The API was asked for a sensor's token.
    SensorToken(Success),
    /// The lease of a sensor changed hands.
    Lease(LeaseChange),
    /// A connection to a server changed.
    Connection {
        /// To which.
        server: Server,
        /// What it is now.
        state: ConnectionState,
    },
    /// A queue's consumer was confirmed by the broker, or lost.
    Consumer(ConsumerChange),
}

/// A closed set of things to be counted apart.
pub trait Kind: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Its word.
    fn word(self) -> &'static str;

    /// Its place in [`Kind::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum whose variants have one word each for the outside.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl Kind for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

kinds! {
    /// What became of a claim.
    ClaimAnswer {
        /// The execution is ours.
        Claimed = "claimed",
        /// Somebody else has it, or it has ended.
        NotOurs = "not_ours",
        /// It had been cancelled before.
        Cancelled = "cancelled",
        /// The worker stops, the dispatch goes back.
        GivenBack = "given_back",
        /// Storage cannot do it, or its answer was lost.
        Failed = "failed",
    }
}

kinds! {
    /// What became of the end of an execution.
    FinishAnswer {
        /// It is in the row.
        Written = "written",
        /// Somebody else had ended the execution; the result was dropped.
        NotOurs = "not_ours",
        /// It could not be written; the next life of the worker ends the execution.
        GivenUp = "given_up",
    }
}

kinds! {
    /// Whose cancel came.
    CancelTarget {
        /// An execution that is here.
        InHand = "in_hand",
        /// One that is not; the cancel is remembered for a while.
        Unknown = "unknown",
    }
}

kinds! {
    /// Whether something worked.
    Success {
        /// It did.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
}

kinds! {
    /// What happened to the consumer of a queue.
    ConsumerChange {
        /// The broker confirmed it: messages come.
        Confirmed = "confirmed",
        /// It is lost and tried again.
        Lost = "lost",
    }
}

kinds! {
    /// The state of a sensor on its host.
    SensorState {
        /// It is not wanted here.
        Idle = "idle",
        /// Another host runs it.
        Waiting = "waiting",
        /// It is being started.
        Starting = "starting",
        /// Its process is alive.
        Running = "running",
        /// It has failed and waits for its next start.
        Backoff = "backoff",
    }
}

kinds! {
    /// Why a sensor was started again.
    RestartCause {
        /// Its process ended by itself.
        Ended = "ended",
        /// It could not be started.
        StartFailed = "start_failed",
        /// Its rules, its code or its settings changed.
        Changed = "changed",
        /// It needed a new token.
        Token = "token",
    }
}

kinds! {
    /// What happened to a lease.
    LeaseChange {
        /// This host has it now.
        Acquired = "acquired",
        /// This host gave it away in order.
        Released = "released",
        /// Another host took it, or it ran out.
        Lost = "lost",
    }
}

kinds! {
    /// A server that agents depend on.
    Server {
        /// The message broker.
        Bus = "bus",
        /// The database.
        Store = "store",
    }
}

kinds! {
    /// What a connection is.
    ConnectionState {
        /// It works.
        Connected = "connected",
        /// The server takes nothing for now.
        Blocked = "blocked",
        /// It is lost and tried again.
        Lost = "lost",
    }
}
