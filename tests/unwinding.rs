//! A panic passes frames of every kind and drops what they hold. `scripts/build-static` compiles this file alone as well, the way the shipped
//! binary is compiled and linked, but for the standard library: there the tables for unwinding have been shortened.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::many_single_char_names, reason = "what they stand for is that they are many")]

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Counts what is dropped, and holds something that has to be right for that.
struct Held<'a> {
    dropped: &'a Cell<u64>,
    worth: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + self.worth);
    }
}

/// What is worth 1, 2, 4, … is held by the frames of `pass` and has to be dropped.
fn dropped_by(pass: impl FnOnce(&Cell<u64>) -> u64) -> u64 {
    let dropped = Cell::new(0);
    let end = catch_unwind(AssertUnwindSafe(|| pass(&dropped)));
    assert_eq!(end.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    dropped.get()
}

#[inline(never)]
fn end(number: u64) -> u64 {
    // The compiler must not know that this never returns.
    assert!(black_box(number) == 0, "on purpose");
    number
}

/// Few and many registers are in use across the call.
#[inline(never)]
fn with_registers(dropped: &Cell<u64>, numbers: [u64; 6]) -> u64 {
    let held = Held { dropped, worth: numbers[0] };
    let [a, b, c, d, e, f] = black_box(numbers);
    let (g, h) = (a * b + c, d * e + f);
    let found = end(a);
    drop(held);
    found + a * g + b * h + c * g + d * h + e + f
}

/// More arguments than registers: they are pushed, by some compilers with the stack moved for each.
#[expect(clippy::too_many_arguments, reason = "that is what is tried")]
#[inline(never)]
fn with_arguments(held: &Held<'_>, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64, i: u64) -> u64 {
    end(a) + held.worth + b + c + d + e + f + g + h + i
}

#[inline(never)]
fn calls_with_arguments(dropped: &Cell<u64>) -> u64 {
    let held = Held { dropped, worth: 1 };
    let first = with_arguments(&held, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    first + with_arguments(&held, 1, 1, 1, 1, 1, 1, 1, 1, 1)
}

/// More than a page of stack, and room that is reached by large distances.
#[inline(never)]
fn with_room(dropped: &Cell<u64>) -> u64 {
    let held = Held { dropped, worth: 1 };
    let room = black_box([7_u8; 16_000]);
    let found = end(u64::from(room[15_999]));
    found + u64::from(black_box(room)[3]) + held.worth
}

/// The function is left early in one place and late in another: what holds behind the first end is that of before.
#[inline(never)]
fn with_two_ends(dropped: &Cell<u64>, early: bool) -> u64 {
    let held = Held { dropped, worth: 1 };
    if black_box(early) {
        return held.worth;
    }
    let second = Held { dropped, worth: 2 };
    let found = end(2);
    found + second.worth + held.worth
}

#[inline(never)]
fn deep(dropped: &Cell<u64>, left: u64) -> u64 {
    let held = Held { dropped, worth: 1 };
    let found = if left == 0 { end(1) } else { deep(dropped, left - 1) };
    found + black_box(held.worth)
}

#[test]
fn registers_arguments_and_room_are_those_of_the_frame() {
    assert_eq!(dropped_by(|dropped| with_registers(dropped, [1, 2, 3, 4, 5, 6])), 1);
    assert_eq!(dropped_by(calls_with_arguments), 1);
    assert_eq!(dropped_by(with_room), 1);
}

#[test]
fn a_function_with_two_ends_is_passed_behind_the_first() {
    assert_eq!(dropped_by(|dropped| with_two_ends(dropped, true) + with_two_ends(dropped, false)), 4);
}

#[test]
fn every_frame_of_many_is_passed() {
    assert_eq!(dropped_by(|dropped| deep(dropped, 999)), 1000);
}

#[test]
fn a_panic_goes_on_behind_a_frame_that_looked_at_it_and_ends_with_its_thread() {
    let caught = thread::spawn(|| {
        let looked = catch_unwind(|| end(1)).unwrap_err();
        resume_unwind(looked);
    });
    assert!(caught.join().unwrap_err().is::<&str>());
}
