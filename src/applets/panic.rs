//! `attune-agents __panic`, hidden: panics and lives on. `scripts/check-static` sees with it that a panic in the shipped binary unwinds.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;

/// How many frames the panic passes, each of which has something to drop.
const DEPTH: u32 = 10;

/// Says how many of them were dropped.
pub(crate) fn run(_call: Call) -> Result<Exit, Failure> {
    let dropped = Rc::new(Cell::new(0));
    let end = catch_unwind(AssertUnwindSafe(|| descend(&dropped, DEPTH)));
    match end {
        Ok(reached) => Err(Failure::message(Exit::Internal, format!("reached {reached} instead of panicking"))),
        Err(_) => {
            output::print(&format!("a panic was caught, {} of {DEPTH} frames dropped what they held\n", dropped.get()))
        }
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
