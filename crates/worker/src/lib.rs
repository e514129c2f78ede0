//! The action worker: dispatcher (the world) and executor (one execution).
