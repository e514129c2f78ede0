//! Interpreters: detection, versions, templates, shared environments.
