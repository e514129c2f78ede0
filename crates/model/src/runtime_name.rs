//! Runtime names and their aliases.
