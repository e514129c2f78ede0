//! `cargo run --release -p attune-bench -- NAME`: figures beside their floors.
fn main() {}
