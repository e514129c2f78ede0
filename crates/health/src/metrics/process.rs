//! The agent's own process, by the names that every Prometheus client uses for it. Read from `/proc` when asked for; what
//! cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Looks at `/proc/self`.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    ticks_per_second: f64,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let ticks = u32::try_from(attune_sys::ticks_per_second()).unwrap_or(u32::MAX);
        Self { ticks_per_second: f64::from(ticks) }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let times = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let gauge = |value: Option<i64>| value.map(ConstGauge::new);
        let cpu = cpu_ticks(&times).map(|ticks| ConstCounter::new(ticks / self.ticks_per_second));
        let started = start_time(&times, self.ticks_per_second).map(ConstGauge::new);
        let resident = gauge(field(&status, "VmRSS:").map(|kib| kib * 1024));
        let threads = gauge(field(&status, "Threads:"));
        write(encoder, "process_cpu_seconds", "CPU time that the process has used.", cpu)?;
        write(encoder, "process_start_time_seconds", "When the process started, since the epoch.", started)?;
        write(encoder, "process_resident_memory_bytes", "Memory of the process that is in RAM.", resident)?;
        write(encoder, "process_threads", "Threads of the process.", threads)?;
        write(encoder, "process_open_fds", "Open descriptors of the process.", gauge(descriptors()))?;
        write(encoder, "process_max_fds", "Most descriptors that the process may open.", gauge(most_descriptors()))
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: Option<impl EncodeMetric>,
) -> fmt::Result {
    match metric {
        Some(metric) => metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?),
        None => Ok(()),
    }
}

/// The number after `name` in a file of lines `name number …`.
fn field(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The fields of `stat` from the third on: the second, a program's name, may hold anything.
fn after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn cpu_ticks(stat: &str) -> Option<f64> {
    let mut times = after_name(stat)?.skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

fn start_time(stat: &str, ticks_per_second: f64) -> Option<f64> {
    let since_boot = after_name(stat)?.nth(19)?.parse::<f64>().ok()? / ticks_per_second;
    let boot = field(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(f64::from(u32::try_from(boot).ok()?) + since_boot)
}

/// Without the one that counts them.
fn descriptors() -> Option<i64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(count.saturating_sub(1)).ok()
}

fn most_descriptors() -> Option<i64> {
    field(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_whatever_the_program_is_called() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 12345 1 1";
        assert_eq!(cpu_ticks(stat), Some(200.0));
        assert_eq!(after_name(stat).unwrap().nth(19), Some("12345"));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert!(descriptors().unwrap() > 2 && most_descriptors().unwrap() > 2);
    }
}
