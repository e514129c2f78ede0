//! The table of addresses through which compiled code reaches what the compiler itself calls: copying, filling and comparing memory.
//!
//! Such calls come out of optimised code wherever the compiler likes, and on x86-64 they go through the global offset table,
//! which the C library puts right with all other tables. Here only this one is: a page or two.

use std::ptr;

/// Program headers of these kinds.
const DYNAMIC: u32 = 2;
const RELRO: u32 = 0x6474_e552;

/// Entries of the dynamic section.
const END: usize = 0;
const RELA: usize = 7;
const RELA_BYTES: usize = 8;
const RELR_BYTES: usize = 35;
const RELR: usize = 36;

const WORD_BYTES: usize = size_of::<usize>();
/// Place, kind and value.
const RELA_ENTRY_BYTES: usize = 3 * WORD_BYTES;
/// Places that one bitmap tells of.
const BITMAP_PLACES: usize = usize::BITS as usize - 1;

/// Where the table is, and where the file is mapped.
#[derive(Clone, Copy)]
struct Table {
    base: usize,
    from: usize,
    to: usize,
}

/// Reads memory of this program; volatile, so that no call is made of a loop over it.
///
/// # Safety
///
/// There is a `T` at `address`.
unsafe fn read<T: Copy>(address: usize) -> T {
    // SAFETY: the same as for the caller.
    unsafe { ptr::with_exposed_provenance::<T>(address).read_volatile() }
}

/// Makes the table right. Linkers put it behind the dynamic section, at the end of what becomes read-only.
///
/// # Safety
///
/// `base` is where the file of this program is mapped, which has not been relocated and will not be afterwards; it is a position
/// independent 64-bit ELF file.
pub(super) unsafe fn relocate(base: usize) {
    // SAFETY: offset, size and number of the program headers are at these places of the file's header.
    let (headers, bytes, number) =
        unsafe { (read::<usize>(base + 32), read::<u16>(base + 54), read::<u16>(base + 56)) };
    let (mut dynamic, mut to) = (0, 0);
    let mut header = base + headers;
    let mut left = number;
    while left > 0 {
        // SAFETY: kind, address and size are at these places of a program header.
        let (kind, address, size) =
            unsafe { (read::<u32>(header), read::<usize>(header + 16), read::<usize>(header + 40)) };
        if kind == DYNAMIC {
            dynamic = base + address;
        } else if kind == RELRO {
            to = base + address + size;
        }
        header += usize::from(bytes);
        left -= 1;
    }
    if dynamic == 0 {
        return;
    }
    let table = Table { base, from: dynamic, to };
    let (mut rela, mut rela_bytes, mut relr, mut relr_bytes) = (0, 0, 0, 0);
    let mut entry = dynamic;
    loop {
        // SAFETY: the section is an array of pairs, and ends with a pair whose first word is zero.
        let (kind, value) = unsafe { (read::<usize>(entry), read::<usize>(entry + WORD_BYTES)) };
        match kind {
            END => break,
            RELA => rela = base + value,
            RELA_BYTES => rela_bytes = value,
            RELR => relr = base + value,
            RELR_BYTES => relr_bytes = value,
            _ => {}
        }
        entry += 2 * WORD_BYTES;
    }
    // SAFETY: these are the two lists of the dynamic section.
    unsafe {
        table.apply_entries(rela, rela_bytes / RELA_ENTRY_BYTES);
        table.apply_bitmaps(relr, relr + relr_bytes);
    }
}

impl Table {
    /// # Safety
    ///
    /// There are `number` entries at `first`, in the order of their places.
    unsafe fn apply_entries(self, first: usize, number: usize) {
        let (mut low, mut high) = (0, number);
        while low < high {
            let middle = usize::midpoint(low, high);
            // SAFETY: an entry of the list; its place comes first.
            let place = self.base + unsafe { read::<usize>(first + middle * RELA_ENTRY_BYTES) };
            if place < self.from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        while low < number {
            let entry = first + low * RELA_ENTRY_BYTES;
            // SAFETY: an entry of the list: place, kind, value.
            let (place, value) = unsafe { (read::<usize>(entry), read::<usize>(entry + 2 * WORD_BYTES)) };
            if self.base + place >= self.to {
                return;
            }
            // SAFETY: a place in the table.
            unsafe { ptr::with_exposed_provenance_mut::<usize>(self.base + place).write_volatile(self.base + value) };
            low += 1;
        }
    }

    /// # Safety
    ///
    /// There are words from `word` to `end`, of which an even one is a place, and an odd one tells of the places after the last.
    unsafe fn apply_bitmaps(self, mut word: usize, end: usize) {
        let mut place = 0;
        while word < end {
            // SAFETY: a word of the list.
            let bits = unsafe { read::<usize>(word) };
            word += WORD_BYTES;
            if bits & 1 == 0 {
                place = self.base + bits;
                // SAFETY: a place that the list names.
                unsafe { self.shift(place) };
                place += WORD_BYTES;
                continue;
            }
            let next = place + BITMAP_PLACES * WORD_BYTES;
            let mut rest = if next > self.from && place < self.to { bits >> 1 } else { 0 };
            let mut at = place;
            while rest != 0 {
                if rest & 1 != 0 {
                    // SAFETY: a place that the list names.
                    unsafe { self.shift(at) };
                }
                rest >>= 1;
                at += WORD_BYTES;
            }
            place = next;
        }
    }

    /// # Safety
    ///
    /// There is an address that has not been relocated at `place`, if that is in the table.
    unsafe fn shift(self, place: usize) {
        if place < self.from || place >= self.to {
            return;
        }
        let pointer = ptr::with_exposed_provenance_mut::<usize>(place);
        // SAFETY: the same as for the caller.
        let value = unsafe { pointer.read_volatile() };
        // SAFETY: the table may be written until the C library protects it.
        unsafe { pointer.write_volatile(self.base + value) };
    }
}
