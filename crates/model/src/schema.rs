//! Flat parameter schemas: defaults, required keys, secret paths.
