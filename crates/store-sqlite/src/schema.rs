//! The schema and its versions. `PRAGMA user_version` says which one a file has.

/// Written into the file's header; tells our files from other SQLite files. The bytes of `ATTU`.
pub(crate) const APPLICATION_ID: i64 = 0x4154_5455;

/// What leads from version n to version n + 1. Published steps never change.
pub(crate) const STEPS: [&str; 1] = [include_str!("schema/1.sql")];
