//! Versions and version constraints.
