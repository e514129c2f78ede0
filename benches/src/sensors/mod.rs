//! Idle sensors under the real host, on PostgreSQL and RabbitMQ, with tokens from the real hub: memory, idle time, start, stop,
//! and how long a changed rule takes to reach its sensor.

mod floor;
mod site;

use std::time::{Duration, Instant};

use site::Site;

use crate::agent::Agent;
use crate::figure::{OutputMode, median};
use crate::report::{Goal, Report};
use crate::words::{Context as _, count_of, megabytes, ms};

/// Starts of all, each beside a floor. Odd, so that the median is one of them.
const ROUNDS: usize = 3;
/// Changed rules.
const CHANGES: usize = 9;
/// How long the idle host is watched: two comparisons with the store, six renewals of its lease.
const IDLE: Duration = Duration::from_mins(1);
/// Until what is freed late is free, before memory is looked at.
const SETTLED: Duration = Duration::from_secs(3);
/// What the slowest sensor takes to end, see `attune-bench-idle`.
const SLOWEST: Duration = Duration::from_secs(1);
/// How long a sensor may take to end, as the host has it when nobody says anything else.
const GRACE: Duration = Duration::from_secs(5);

/// Measures everything with so many sensors, or only so many `starts`, and prints it.
pub(crate) fn run(sensors: usize, starts: Option<usize>, mode: OutputMode) -> Result<String, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let mut site = Site::new(sensors).await?;
        let report = match starts {
            Some(rounds) => only_starts(&mut site, rounds.max(1)).await,
            None => measure(&mut site).await,
        };
        let report = report.map_err(|error| format!("{error}\nthe host said:\n{}", site.log()))?;
        Ok(report.print(mode))
    })
}

/// For the comparison of two builds: one after the other and in turn, in the same minutes.
async fn only_starts(site: &mut Site, rounds: usize) -> Result<Report, String> {
    let mut report = Report::default();
    let hub = site.start_hub().await?;
    starts(site, rounds, &mut report).await?.stop()?;
    hub.stop()?;
    Ok(report)
}

async fn measure(site: &mut Site) -> Result<Report, String> {
    let mut report = Report::default();
    let hub = site.start_hub().await?;
    let none = alone(site, &mut report).await?;
    let host = starts(site, ROUNDS, &mut report).await?;
    site.wait_until_all_are_recorded().await?;
    tokio::time::sleep(SETTLED).await;
    let memory = host.memory()?;
    let each = count_of(memory.own.saturating_sub(none)) / 1024.0 / count_of(site.count());
    let what = format!("the host's own memory for each of {} sensors", site.count());
    report.add("each_kib", what, each, "KiB", Goal::Most(48.0));
    report.add("idle_mb", "resident with all of them", megabytes(memory.resident), "MB", Goal::None);
    let idle = host.idle_percent(IDLE).await?;
    report.add("idle_cpu_percent", format!("of a core when idle, over {IDLE:?}"), idle, "%", Goal::Most(0.1));
    report.add("connections", "connections to the database at most", count_of(site.most_connections), "", Goal::None);
    changes(site, &mut report).await?;
    stops(site, host, &mut report)?;
    stubborn(site, &mut report).await?;
    hub.stop()?;
    Ok(report)
}

/// The host while there is nothing to run. Returns its own memory in bytes.
async fn alone(site: &mut Site, report: &mut Report) -> Result<u64, String> {
    let host = site.start_host()?;
    site.wait_until_registered().await?;
    tokio::time::sleep(SETTLED).await;
    let memory = host.memory()?;
    report.add("none_mb", "resident with no sensor", megabytes(memory.resident), "MB", Goal::None);
    report.add("none_private_mb", "… of it written to, its own", megabytes(memory.own), "MB", Goal::Most(10.0));
    let idle = host.idle_percent(IDLE).await?;
    report.add("none_cpu_percent", format!("of a core with no sensor, over {IDLE:?}"), idle, "%", Goal::None);
    host.stop()?;
    Ok(memory.own)
}

/// Alternating rounds of floor and host. Returns the last host.
async fn starts(site: &mut Site, rounds: usize, report: &mut Report) -> Result<Agent, String> {
    site.want_all().await?;
    let (mut ours, mut bare, mut ends, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let host = loop {
        bare.push(floor::start_all(site)?);
        let host = site.start_host()?;
        let ran = site.wait_until_all_run().await?;
        ours.push(ran.saturating_duration_since(host.begun));
        cpu.push(host.cpu()?);
        if ours.len() == rounds {
            break host;
        }
        site.wait_until_all_are_recorded().await?;
        ends.push(host.stop()?);
    };
    let (ours, bare) = (median(ours), median(bare));
    let what = format!("start of {} sensors, that of the host included", site.count());
    report.add("start_ms", what, ms(ours), "ms", Goal::None);
    report.add("floor_start_ms", "floor: the same programs spawned in a loop", ms(bare), "ms", Goal::None);
    report.add("start_ratio", "start to the floor's", ms(ours) / ms(bare), "", Goal::Most(2.0));
    let each = ms(median(cpu)) / count_of(site.count());
    report.add("start_cpu_ms", "the host's own CPU for it, each", each, "ms", Goal::None);
    report.add("stop_ms", "stop of all when they end at once", ms(median(ends)), "ms", Goal::None);
    Ok(host)
}

/// From a rule's change and its message to the sensor that was started with it.
async fn changes(site: &mut Site, report: &mut Report) -> Result<(), String> {
    let mut times = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        let begun = Instant::now();
        site.change_rule(number).await?;
        times.push(site.wait_until_more_run()?.saturating_duration_since(begun));
    }
    let what = "a changed rule to the changed sensor, 200 ms of it the wait for further changes";
    report.add("reaction_ms", what, ms(median(times)), "ms", Goal::None);
    Ok(())
}

/// The stop of all when each takes its own time.
fn stops(site: &Site, host: Agent, report: &mut Report) -> Result<(), String> {
    site.make_ends_slow()?;
    let took = host.stop()?;
    report.add("slow_stop_ms", format!("stop of all when the slowest takes {SLOWEST:?}"), ms(took), "ms", Goal::None);
    let ratio = took.as_secs_f64() / SLOWEST.as_secs_f64();
    report.add("stop_ratio", "stop to the slowest sensor's", ratio, "", Goal::Most(1.2));
    Ok(())
}

/// The stop of all when none ends by itself. Nothing is left then: neither a process nor a row that tells of one.
async fn stubborn(site: &mut Site, report: &mut Report) -> Result<(), String> {
    let host = site.start_host()?;
    site.wait_until_all_run().await?;
    site.wait_until_all_are_recorded().await?;
    site.make_all_deaf()?;
    let took = host.stop()?;
    site.assert_nothing_is_left().await?;
    let beyond = took.saturating_sub(GRACE);
    let what = format!("stop of {} that ignore the end, beyond their grace of {GRACE:?}", site.count());
    report.add("stubborn_stop_ms", what, ms(beyond), "ms", Goal::Most(2000.0));
    Ok(())
}
