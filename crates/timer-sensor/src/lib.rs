//! The core pack's native timer sensor: interval, cron, date and recurrence timers.
