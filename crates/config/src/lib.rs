//! YAML and environment into one validated struct per section; the only reader of the environment.
