//! The sensor host on real storage, a real bus and real sensors. One program: each would be linked with everything for itself.
#![expect(clippy::unwrap_used, reason = "tests")]

mod courier;
mod failing;
mod health;
mod hosts;
mod neighbours;
mod own_files;
mod packs;
mod placing;
mod preparing;
mod running;
mod side_by_side;
mod support;
mod talking;
mod vital;
mod zoo;
