//! Storage on the platform's own PostgreSQL schema.
