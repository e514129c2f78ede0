//! The sensor host: dispatcher (the world) and supervisor (one sensor).
