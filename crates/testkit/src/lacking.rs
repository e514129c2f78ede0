//! Tests that need something that a machine may lack: they fail and say so, unless somebody has said that this is known.
#![expect(clippy::disallowed_methods, reason = "a variable of the tests")]

/// Names what is known to be missing, separated by commas, by the names that the failures tell.
pub const SKIP_VARIABLE: &str = "ATTUNE_TEST_SKIP";

/// Whether [`SKIP_VARIABLE`] names `what`.
pub fn is_given_up(what: &str) -> bool {
    std::env::var(SKIP_VARIABLE).is_ok_and(|list| list.split(',').any(|name| name.trim() == what))
}

/// To be called by a test that cannot run because `what` is missing, before it returns; `remedy` says how to get it.
///
/// # Panics
///
/// Unless [`SKIP_VARIABLE`] names `what`.
pub fn lacking(what: &str, remedy: &str) {
    assert!(is_given_up(what), "this test needs {what}: {remedy}, or set {SKIP_VARIABLE}={what} to do without it");
}
