//! What worker, sensor host and hub need from storage, as traits.
