//! Publish and consume as traits; the in-process bus.
