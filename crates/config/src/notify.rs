//! The variables of the protocol of systemd's `sd_notify`.

use std::ffi::OsString;
use std::time::Duration;

use crate::Source;

/// Where the service manager listens.
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Longest time between two signs of life, in microseconds.
pub(crate) const WATCHDOG_TIME: &str = "WATCHDOG_USEC";

/// Whose signs of life are wanted; without it, everybody's.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A service manager that wants to know how the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceManager {
    /// A path, or `@` and a name.
    pub socket: OsString,
    /// Longest time between two signs of life.
    pub watchdog: Option<Duration>,
}

/// The service manager that started the process `pid`, if one did.
pub fn service_manager(source: &dyn Source, pid: u32) -> Option<ServiceManager> {
    let socket = source.get(NOTIFY_SOCKET).filter(|value| !value.is_empty())?;
    let number = |name| source.get(name)?.to_str()?.trim().parse::<u64>().ok();
    let is_meant = number(WATCHDOG_PID).is_none_or(|meant| meant == u64::from(pid));
    let time = number(WATCHDOG_TIME).filter(|time| *time > 0 && is_meant);
    Some(ServiceManager { socket, watchdog: time.map(Duration::from_micros) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapSource;

    fn manager(variables: &[(&str, &str)]) -> Option<ServiceManager> {
        service_manager(
            &variables.iter().fold(MapSource::default(), |source, (name, value)| source.with(*name, *value)),
            7,
        )
    }

    #[test]
    fn signs_of_life_are_those_of_the_process_that_is_meant() {
        assert_eq!(manager(&[(WATCHDOG_TIME, "1000000")]), None);
        let watchdog = |pid| manager(&[(NOTIFY_SOCKET, "/n"), (WATCHDOG_TIME, "1000000"), (WATCHDOG_PID, pid)]);
        assert_eq!(watchdog("7").unwrap().watchdog, Some(Duration::from_secs(1)));
        assert_eq!(watchdog("8").unwrap().watchdog, None);
        assert_eq!(watchdog("").unwrap().watchdog, Some(Duration::from_secs(1)));
        assert_eq!(manager(&[(NOTIFY_SOCKET, "@n"), (WATCHDOG_TIME, "x")]).unwrap().watchdog, None);
    }
}
