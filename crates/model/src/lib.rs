//! Ids, states, rows, messages and the pure rules over them; no I/O.
