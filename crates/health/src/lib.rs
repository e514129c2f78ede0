//! Liveness, readiness, status and metrics of an agent.
