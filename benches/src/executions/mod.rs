//! Executions through RabbitMQ and PostgreSQL by the real worker, beside a bare loop on the same servers in the same rounds.

mod floor;
mod load;
mod relay;
mod site;

use std::time::{Duration, Instant};

use floor::Floor;
use load::{Load, Reached};
use relay::{Protocol, Relay};
use site::Site;

use crate::agent::Agent;
use crate::figure::{OutputMode, median};
use crate::place::Ways;
use crate::report::{Goal, Report};
use crate::words::{Context as _, count_of, megabytes, ms};

/// Odd, so that the median is one of them.
const ROUNDS: usize = 5;
/// Executions that are counted one by one behind the relays.
const COUNTED: usize = 200;
/// How long the idle worker is watched at a time: two heartbeats of its row, two of the broker.
const IDLE: Duration = Duration::from_mins(1);
/// When a worker that has just started has looked for everything.
const LOOKED_AGAIN: Duration = Duration::from_secs(7);
/// Starts on queues that exist.
const RESTARTS: usize = 5;
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// `basic.consume-ok` of the broker; a worker has three consumers.
const CONSUMING: (&str, u64) = ("<60.21", 3);

/// How much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) executions: usize,
    pub(crate) at_once: usize,
    pub(crate) waiting: usize,
    /// Without the minutes in which nothing happens.
    pub(crate) busy: bool,
}

/// Measures everything and prints it.
pub(crate) fn run(volume: Volume, mode: OutputMode) -> Result<String, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let site = Site::new(volume.at_once).await?;
        let report =
            measure(&site, volume).await.map_err(|error| format!("{error}\nthe worker said:\n{}", site.log()))?;
        Ok(report.print(mode))
    })
}

async fn measure(site: &Site, volume: Volume) -> Result<Report, String> {
    let mut report = Report::default();
    let mut load = Load::new(site).await?;
    starts(site, &mut load, &mut report).await?;
    let agent = site.start(&site.ways())?;
    // The first executions open connections, prepare statements and make the log artifact.
    load.together(site.worker, volume.at_once * 4).await?;
    if volume.busy {
        // It looks once more for rows whose messages it may have missed, and would find those that have none yet.
        tokio::time::sleep(LOOKED_AGAIN).await;
    } else {
        idle(&agent, &mut report).await?;
    }
    let _floor = Floor::start(site, volume.at_once).await?;
    let rates = rounds(site, &agent, &mut load, volume, &mut report).await?;
    waiting(site, &agent, &mut load, volume, rates, &mut report).await?;
    report.add("stop_busy_ms", "stop with all slots busy", ms(agent.stop()?), "ms", Goal::None);
    Ok(report)
}

/// Starts behind relays: time until every consumer is confirmed, and what one execution costs in round trips and messages.
async fn starts(site: &Site, load: &mut Load, report: &mut Report) -> Result<(), String> {
    let server = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default().to_owned()
    };
    let (database, broker) = (site.database().url(), site.broker().url());
    let postgres = Relay::start(&server(&database), Protocol::Postgres).context("a relay")?;
    let amqp = Relay::start(&server(&broker), Protocol::Amqp).context("a relay")?;
    // What is encrypted cannot be counted.
    let separator = if database.contains('?') { '&' } else { '?' };
    let database_here = database.replace(&server(&database), &postgres.address().to_string());
    let ways = Ways {
        database: format!("{database_here}{separator}sslmode=disable"),
        broker: broker.replace(&server(&broker), &amqp.address().to_string()),
    };
    let (agent, first) = started(site, &ways, &amqp).await?;
    report.add("ready_new_ms", "ready after a start with new queues", ms(first), "ms", Goal::None);
    let mut stops = vec![agent.stop()?];
    let mut times = Vec::with_capacity(RESTARTS);
    for _ in 1..RESTARTS {
        let (agent, time) = started(site, &ways, &amqp).await?;
        times.push(time);
        stops.push(agent.stop()?);
    }
    let (agent, time) = started(site, &ways, &amqp).await?;
    times.push(time);
    report.add("ready_ms", "ready after a restart", ms(median(times)), "ms", Goal::Most(100.0));
    report.add("stop_ms", "stop when idle", ms(median(stops)), "ms", Goal::Most(30.0));
    load.together(site.worker, 40).await?;
    postgres.reset();
    amqp.reset();
    load.together(site.worker, COUNTED).await?;
    // The sizes of logs are written after the completion.
    agent.stop()?;
    let (statements, messages) = (postgres.counts(), amqp.counts());
    let each = |count: u64| count_of(count) / count_of(u64::try_from(COUNTED).unwrap_or(1));
    if statements.of("execution") == 0 {
        return Err("the relay saw no statements".to_owned());
    }
    let (own, logs) = (each(statements.of("execution")), each(statements.of("logs")));
    report.add("statements", "round trips for the execution, each", own, "", Goal::Most(2.0));
    report.add("log_statements", "… for its logs (batched)", logs, "", Goal::None);
    let rest = each(statements.of("other") + statements.of("preparing"));
    report.add("other_statements", "… for anything else", rest, "", Goal::None);
    report.add("published", "messages published, each", each(messages.of(">60.40")), "", Goal::Most(3.0));
    report.add("acknowledged", "messages acknowledged, each", each(messages.of(">60.80")), "", Goal::Most(1.0));
    Ok(())
}

async fn started(site: &Site, ways: &Ways, amqp: &Relay) -> Result<(Agent, Duration), String> {
    let (method, consumers) = CONSUMING;
    amqp.reset();
    let agent = site.start(ways)?;
    while agent.begun.elapsed() < PATIENCE {
        let counts = amqp.counts();
        if counts.of(method) >= consumers {
            let last = counts.last(method).unwrap_or_else(Instant::now);
            let took = last.saturating_duration_since(agent.begun);
            return Ok((agent, took));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("the worker was not ready within {PATIENCE:?}"))
}

async fn idle(agent: &Agent, report: &mut Report) -> Result<(), String> {
    // Connections and threads that the first executions needed are still there for a while.
    let first = agent.idle_percent(IDLE).await?;
    let later = agent.idle_percent(IDLE).await?;
    let memory = agent.memory()?;
    report.add("idle_first_cpu_percent", format!("of a core in the first {IDLE:?} after work"), first, "%", Goal::None);
    report.add("idle_cpu_percent", format!("of a core when idle, in the next {IDLE:?}"), later, "%", Goal::Most(0.01));
    report.add("idle_mb", "resident when idle", megabytes(memory.resident), "MB", Goal::Most(10.0));
    report.add("idle_private_mb", "… of it written to, its own", megabytes(memory.own), "MB", Goal::Most(5.0));
    report.add("threads", "threads when idle", count_of(memory.threads), "", Goal::None);
    Ok(())
}

/// What floor and worker reach.
#[derive(Debug, Clone, Copy)]
struct Rates {
    ours: f64,
    floor: f64,
}

/// Alternating rounds of floor and worker. Returns their rates.
async fn rounds(
    site: &Site,
    agent: &Agent,
    load: &mut Load,
    volume: Volume,
    report: &mut Report,
) -> Result<Rates, String> {
    load.together(site.floor, volume.at_once * 4).await?;
    let (single, many) = ((volume.executions / ROUNDS / 4).max(10), (volume.executions / ROUNDS).max(10));
    let (mut ours, mut bare) = (Reached::default(), Reached::default());
    let (mut cpu, mut ended) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        bare.alone.extend(load.alone(site.floor, single).await?);
        bare.rates.push(load.together(site.floor, many).await?);
        let before = agent.cpu()?;
        ours.alone.extend(load.alone(site.worker, single).await?);
        ours.rates.push(load.together(site.worker, many).await?);
        cpu += agent.cpu()?.saturating_sub(before);
        ended += single + many;
    }
    let (rate, floor) = (middle(ours.rates), middle(bare.rates));
    report.add("rate", format!("{} at once", volume.at_once), rate, "/s", Goal::Least(300.0));
    report.add("floor_rate", "floor", floor, "/s", Goal::None);
    report.add("rate_ratio", "rate to the floor's", rate / floor, "", Goal::Least(0.7));
    let (p50, p99) = (percentile(&mut ours.alone, 50), percentile(&mut ours.alone, 99));
    let (floor_p50, floor_p99) = (percentile(&mut bare.alone, 50), percentile(&mut bare.alone, 99));
    report.add("p50_ms", "dispatch to completion, one at a time, p50", p50, "ms", Goal::Most(10.0));
    report.add("floor_p50_ms", "floor", floor_p50, "ms", Goal::None);
    report.add("p50_ratio", "p50 to the floor's", p50 / floor_p50, "", Goal::Most(1.5));
    report.add("p99_ms", "… p99", p99, "ms", Goal::None);
    report.add("floor_p99_ms", "floor", floor_p99, "ms", Goal::None);
    report.add("cpu_ms", "the worker's own CPU, each", each(cpu, ended), "ms", Goal::Most(1.2));
    report.add("peak_mb", "peak memory", megabytes(agent.memory()?.peak), "MB", Goal::None);
    Ok(Rates { ours: rate, floor })
}

/// Both again with messages waiting: what the floor loses with them is the servers'.
async fn waiting(
    site: &Site,
    agent: &Agent,
    load: &mut Load,
    volume: Volume,
    none: Rates,
    report: &mut Report,
) -> Result<(), String> {
    let Volume { executions, waiting, .. } = volume;
    let floor = load.backlog(site.floor, waiting, executions).await?;
    load.purge(site.floor, floor::QUEUE).await?;
    let before = (agent.cpu()?, load.ended());
    let ours = load.backlog(site.worker, waiting, executions).await?;
    let (cpu, ended) = (agent.cpu()?.saturating_sub(before.0), load.ended() - before.1);
    report.add("waiting_rate", format!("{} at once, {waiting} waiting", volume.at_once), ours, "/s", Goal::None);
    report.add("floor_waiting_rate", "floor", floor, "/s", Goal::None);
    report.add("waiting_ratio", "rate to that with none waiting", ours / none.ours, "", Goal::Least(0.9));
    report.add("floor_waiting_ratio", "floor", floor / none.floor, "", Goal::None);
    report.add("waiting_rate_ratio", "rate to the floor's, both with waiting", ours / floor, "", Goal::Least(0.7));
    report.add("waiting_cpu_ms", "the worker's own CPU, each, with waiting", each(cpu, ended), "ms", Goal::None);
    Ok(())
}

fn each(cpu: Duration, ended: usize) -> f64 {
    ms(cpu) / count_of(u64::try_from(ended).unwrap_or(1))
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times.get(times.len() * percent / 100).copied().map_or(0.0, ms)
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
