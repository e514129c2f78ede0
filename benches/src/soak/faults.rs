//! Things that fail, one after the other, at random.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attune_sys::{SIGKILL, SIGTERM};
use tokio::time::Instant;

use super::installation::Installation;

/// Between the end of one fault and the next.
const PAUSE: std::ops::Range<u64> = 1000..6000;

/// How long something lasts that lasts.
const LASTING: std::ops::Range<u64> = 500..8000;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    CutBroker,
    CutDatabase,
    BlackHoleBroker,
    BlackHoleDatabase,
    RefuseBoth,
    KillWorker,
    StopWorker,
}

const ALL: [Fault; 7] = [
    Fault::CutBroker,
    Fault::CutDatabase,
    Fault::BlackHoleBroker,
    Fault::BlackHoleDatabase,
    Fault::RefuseBoth,
    Fault::KillWorker,
    Fault::StopWorker,
];

/// What fails next, and what fails now.
#[derive(Debug)]
pub(crate) struct Faults {
    random: u64,
    next: Instant,
    lasts: bool,
    counts: BTreeMap<Fault, usize>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
        Self { random: seed | 1, next: Instant::now() + Duration::from_secs(5), lasts: false, counts: BTreeMap::new() }
    }

    /// Begins or ends a fault when it is time.
    pub(crate) async fn tick(&mut self, place: &mut Installation) -> Result<(), String> {
        if Instant::now() < self.next {
            return Ok(());
        }
        if self.lasts {
            place.resume();
            self.lasts = false;
            self.next = Instant::now() + self.between(PAUSE);
            return Ok(());
        }
        let fault = ALL[usize::try_from(self.draw(0..7)).unwrap_or(0)];
        *self.counts.entry(fault).or_default() += 1;
        match fault {
            Fault::CutBroker => place.broker_proxy.cut(),
            Fault::CutDatabase => place.database_proxy.cut(),
            Fault::BlackHoleBroker => place.broker_proxy.black_hole_both(),
            Fault::BlackHoleDatabase => place.database_proxy.black_hole_both(),
            Fault::RefuseBoth => {
                for proxy in [&place.broker_proxy, &place.database_proxy] {
                    proxy.refuse();
                    proxy.cut();
                }
            }
            Fault::KillWorker => place.restart_worker(SIGKILL).await?,
            Fault::StopWorker => place.restart_worker(SIGTERM).await?,
        }
        self.lasts = matches!(fault, Fault::BlackHoleBroker | Fault::BlackHoleDatabase | Fault::RefuseBoth);
        self.next = Instant::now() + self.between(if self.lasts { LASTING } else { PAUSE });
        Ok(())
    }

    /// Nothing fails any more.
    pub(crate) async fn end(&mut self, place: &mut Installation) -> Result<(), String> {
        place.resume();
        place.restart_worker(SIGTERM).await
    }

    /// How often each came.
    pub(crate) fn counts(&self) -> String {
        let counts = self.counts.iter().map(|(fault, count)| format!("{count} {fault:?}")).collect::<Vec<_>>();
        format!("faults: {}\n", counts.join(", "))
    }

    fn between(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// Xorshift: nothing depends on its quality.
    fn draw(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        range.start + self.random % (range.end - range.start)
    }
}
