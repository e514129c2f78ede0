//! The clock that no one can set.

use std::mem::MaybeUninit;
use std::time::Duration;

/// `clock_gettime(2)`, `CLOCK_BOOTTIME`: since the start of the machine, the time in which it slept included. The same for
/// every process. What must be over at a certain time is measured with it: the monotonic clock stands still during sleep.
pub fn boottime() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime writes one timespec, for which the pointer is valid.
    let returned = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, time.as_mut_ptr()) };
    if returned != 0 {
        // Part of every Linux since 2.6.39. A time that is over is the answer that does no harm: nothing may run.
        return Duration::MAX;
    }
    // SAFETY: the call succeeded, so the kernel has filled the structure.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_and_agrees_with_the_kernel() {
        let before = boottime();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let after = boottime();
        assert!(before.as_secs_f64() <= uptime + 0.02 && uptime <= after.as_secs_f64() + 0.02, "{before:?} {uptime}");
    }
}
