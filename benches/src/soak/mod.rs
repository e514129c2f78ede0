//! A worker under load for as long as somebody wants, with faults on request: what it takes over time, and what became of
//! every execution.

mod faults;
mod installation;
mod ledger;
mod vitals;

use std::io::{self, Write};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use faults::Faults;
use installation::Installation;
use ledger::Ledger;
use vitals::Vitals;

/// Most executions that wait or run.
const OUTSTANDING: i64 = 100;

/// Asked for at a time, so often.
const ROUND: usize = 5;
const ROUND_PERIOD: Duration = Duration::from_millis(100);

/// Between two lines of figures.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// How long the rest may take when nothing fails any more.
const SETTLE_LIMIT: Duration = Duration::from_mins(3);

/// What somebody wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// How long.
    pub(crate) length: Duration,
    /// Whether things fail.
    pub(crate) faults: bool,
}

/// Runs it; the text says what became of it. An error when something was lost, ran twice or was left behind.
pub(crate) fn run(wish: Wish) -> Result<String, String> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(soak(wish))
}

async fn soak(wish: Wish) -> Result<String, String> {
    let mut place = Installation::start().await?;
    let mut ledger = Ledger::default();
    let mut faults = wish.faults.then(Faults::new);
    let begun = Instant::now();
    let mut rounds = interval(ROUND_PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reports = interval(REPORT_PERIOD);
    let mut samples = Vec::new();
    say(Vitals::HEAD)?;
    while begun.elapsed() < wish.length {
        tokio::select! {
            _ = rounds.tick() => {
                if let Some(faults) = &mut faults {
                    faults.tick(&mut place).await?;
                }
                if place.outstanding().await < OUTSTANDING {
                    ledger.asked(place.ask(ROUND)?);
                }
            }
            _ = reports.tick() => {
                let vitals = Vitals::of(place.worker(), begun.elapsed(), ledger.count());
                say(&vitals.line())?;
                samples.push(vitals);
            }
        }
    }
    if let Some(faults) = &mut faults {
        faults.end(&mut place).await?;
    }
    settle(&place).await;
    let vitals = Vitals::of(place.worker(), begun.elapsed(), ledger.count());
    say(&vitals.line())?;
    let verdict = ledger.verdict(&place).await?;
    let counts = faults.map(|faults| faults.counts()).unwrap_or_default();
    place.stop().await?;
    let summary = format!("{}{counts}{}", vitals::summary(&samples, vitals), verdict.text);
    if verdict.is_good && vitals.zombies == 0 { Ok(summary) } else { Err(format!("not as promised\n{summary}")) }
}

async fn settle(place: &Installation) {
    let begun = Instant::now();
    while place.outstanding().await > 0 && begun.elapsed() < SETTLE_LIMIT {
        sleep(ROUND_PERIOD).await;
    }
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| format!("cannot write the figures: {error}"))
}
