//! Signals, soft and hard stop, tracked tasks, bounded drain.
