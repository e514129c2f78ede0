//! Signed tokens and secrets at rest.
