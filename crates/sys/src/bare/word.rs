//! Arguments and environment as the kernel lays them out: arrays of strings that end with zero.

use std::ffi::c_char;
use std::slice;

/// A string that ends with zero and lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Word(*const c_char);

impl Word {
    /// Without the zero.
    pub(super) fn bytes(self) -> &'static [u8] {
        let mut length = 0;
        let mut place = self.0;
        // SAFETY: a Word ends with zero, and no byte before this place was zero, so it is still part of the string.
        while unsafe { *place } != 0 {
            // SAFETY: this byte is not the last one.
            place = unsafe { place.add(1) };
            length += 1;
        }
        // SAFETY: these bytes were just read, and nobody writes to them.
        unsafe { slice::from_raw_parts(self.0.cast(), length) }
    }

    pub(super) fn pointer(self) -> *const c_char {
        self.0
    }

    /// Puts zeros in the place of what is there.
    ///
    /// # Safety
    ///
    /// The string is in memory that may be written, and nobody reads it at the same time.
    pub(super) unsafe fn clear(self) {
        let mut place = self.0.cast_mut();
        // SAFETY: a Word ends with zero, and no byte before this place was zero, so it is still part of the string.
        while unsafe { *place } != 0 {
            // SAFETY: part of the string, which may be written.
            unsafe { place.write_volatile(0) };
            // SAFETY: this byte was not the last one.
            place = unsafe { place.add(1) };
        }
    }

    /// The name before the first `=`, and what follows it.
    pub(super) fn split(self) -> Option<(&'static [u8], Self)> {
        let bytes = self.bytes();
        let mut length = 0;
        while *bytes.get(length)? != b'=' {
            length += 1;
        }
        // SAFETY: `length` is the place of a byte of the string, so the next one is part of it too, or its zero.
        let value = Self(unsafe { self.0.add(length + 1) });
        Some((bytes.get(..length)?, value))
    }

    /// A decimal number.
    pub(super) fn number(self) -> Option<u64> {
        let bytes = self.bytes();
        let mut value: u64 = 0;
        for byte in bytes {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
        }
        (!bytes.is_empty()).then_some(value)
    }

    /// A decimal number with an optional sign.
    pub(super) fn signed(self) -> Option<i32> {
        if !matches!(self.bytes().first(), Some(b'-')) {
            return i32::try_from(self.number()?).ok();
        }
        // SAFETY: the first byte is no zero, so there is a second one.
        let positive = Self(unsafe { self.0.add(1) });
        i32::try_from(0_i64.checked_sub_unsigned(positive.number()?)?).ok()
    }
}

/// An array of words that ends with a null pointer.
#[derive(Clone, Copy)]
pub(crate) struct Words(*const *const c_char);

impl Words {
    /// # Safety
    ///
    /// `first` points to an array of strings that end with zero; the array ends with a null pointer. All of it lives and stays
    /// as it is until the process becomes another program or whoever uses the words is done.
    pub(crate) unsafe fn new(first: *const *const c_char) -> Self {
        Self(first)
    }

    pub(super) fn pointer(self) -> *const *const c_char {
        self.0
    }

    /// The next word, which stays.
    pub(super) fn first(self) -> Option<Word> {
        // SAFETY: the array ends with a null pointer, and nobody goes beyond that one.
        let word = unsafe { *self.0 };
        (!word.is_null()).then_some(Word(word))
    }

    /// Takes the next word.
    pub(super) fn take(&mut self) -> Option<Word> {
        let word = self.first()?;
        // SAFETY: there is a word here, so there is another one or the null pointer behind it.
        self.0 = unsafe { self.0.add(1) };
        Some(word)
    }
}
