//! Storage embedded in the process, on SQLite.
