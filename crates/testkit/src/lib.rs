//! Test support: waiting for facts, containers, databases and brokers for one test, contracts, a proxy that fails, answers of a server.

pub mod answers;
mod broker;
pub mod bus_contract;
mod certificate;
pub mod containers;
pub mod database;
mod lacking;
mod lease;
mod private_postgres;
mod proxy;
mod small_disk;
pub mod store_contract;
pub mod wheel;
mod witness;

pub use broker::{Management, PrivateBroker, TestBroker};
pub use lacking::{SKIP_VARIABLE, is_given_up, lacking};
pub use lease::Held;
pub use private_postgres::PrivatePostgres;
pub use proxy::{Direction, Proxy};
pub use small_disk::SmallDisk;
pub use witness::{Testimonies, WITNESS};

use std::time::{Duration, Instant};

/// How long a fact may take to become true before a test fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Polls `fact` until it yields a value; panics with `what` when [`PATIENCE`] is over.
///
/// The interval is short and the limit long, so that a slow machine makes a test slow and never wrong.
///
/// # Panics
///
/// When the fact does not become true.
pub async fn eventually<T>(what: &str, mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// [`eventually`] for tests without a runtime.
///
/// # Panics
///
/// When the fact does not become true.
pub fn eventually_blocking<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Makes a test of each async function on each of the places that it is given: `module: value, … => [function, …]`.
#[macro_export]
macro_rules! tests_on_each {
    ($($place:ident: $on:expr),+ => $tests:tt) => {
        $($crate::tests_on_each! { @ $place $on; $tests })+
    };
    (@ $place:ident $on:expr; [$($test:ident),+ $(,)?]) => {
        mod $place {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($on).await;
            })+
        }
    };
}
