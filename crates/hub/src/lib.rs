//! HTTP API, rule matching and scheduling for installations without the platform's own services.
