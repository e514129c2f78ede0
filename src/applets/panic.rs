//! `attune-agents __panic`, hidden: panics and lives on. `scripts/check-static` sees with it that a panic in the shipped binary unwinds.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;

use argh::FromArgs;
use attune_config::process_env;
use tracing::level_filters::LevelFilter;

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::telemetry::Telemetry;

/// How many frames the panic passes, each of which has something to drop.
const DEPTH: u32 = 10;

/// Panics on purpose.
#[derive(Debug, FromArgs)]
struct PanicArguments {
    /// while something is dropped: there the shipped binary ends
    #[argh(switch)]
    in_drop: bool,
}

/// With the hook that agents have, first in a thread of its own. Says how many frames dropped what they held.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|PanicArguments { in_drop }| {
        let _telemetry = Telemetry::start(&process_env(), None, LevelFilter::INFO)?;
        if in_drop {
            return match catch_unwind(|| drop(Harmful)) {
                Ok(()) => Err(Failure::message(Exit::Internal, "dropped instead of panicking")),
                Err(_) => output::print("a panic was caught that came while something was dropped\n"),
            };
        }
        let other = thread::spawn(|| descend(&Rc::default(), DEPTH)).join().is_err();
        let dropped = Rc::new(Cell::new(0));
        match catch_unwind(AssertUnwindSafe(|| descend(&dropped, DEPTH))) {
            Err(_) if other => output::print(&format!(
                "a panic was caught, {} of {DEPTH} frames dropped what they held\n",
                dropped.get()
            )),
            end => Err(Failure::message(Exit::Internal, format!("did not panic: {other}, {end:?}"))),
        }
    })
}

struct Harmful;

impl Drop for Harmful {
    #[inline(never)]
    fn drop(&mut self) {
        // The compiler must not know that this never goes on.
        assert!(std::hint::black_box(false), "on purpose, while something is dropped");
    }
}

struct Held(Rc<Cell<u32>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[inline(never)]
fn descend(dropped: &Rc<Cell<u32>>, left: u32) -> u32 {
    let held = Held(Rc::clone(dropped));
    // The compiler must not know that this never returns.
    assert!(std::hint::black_box(left) > 1, "on purpose");
    descend(dropped, left - 1) + held.0.get()
}
