//! The tables for unwinding of a program that `scripts/unwind-tables` has packed, as they lie in memory.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, ptr};

use libc::{c_int, c_void, dl_phdr_info};

use crate::check::check;
use crate::limits::page_size;

/// Tables that have to be made before anything unwinds, and the memory in which they are looked for.
#[derive(Debug)]
pub struct PackedTables {
    /// What they are made of.
    pub packed: &'static [u8],
    /// Where they belong; zeros until then.
    pub room: &'static mut [u8],
}

impl PackedTables {
    /// `mprotect(2)`: nobody writes there any more.
    pub fn seal(self) -> io::Result<()> {
        let Self { room, .. } = self;
        let page = usize::try_from(page_size()).map_err(io::Error::other)?;
        // The pages of their own; a first one may have bytes of others, which are only read as well.
        let begin = room.as_ptr().align_offset(page);
        let Some(inner) = room.get_mut(begin..) else { return Ok(()) };
        let range = inner.as_mut_ptr().cast::<c_void>();
        // SAFETY: the pages belong to the last segment of the program, of which nothing is written after this.
        check(unsafe { libc::mprotect(range, inner.len(), libc::PROT_READ) }).map(drop)
    }
}

/// `dl_iterate_phdr(3)`: the tables of this program, to the first who asks; none if they lie there as they are.
pub fn packed_tables() -> Option<PackedTables> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut found: Option<Found> = None;
    // SAFETY: the callback gets the pointer that is given here, and only while this call lasts.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    let found = found?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: these are the bytes of the file in the segment, which nothing writes to.
    let packed = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(found.segment), found.packed) };
    let room = ptr::with_exposed_provenance_mut(found.segment + found.begin);
    // SAFETY: the rest of the segment is memory that nothing of the program refers to, and it is handed out once.
    let room = unsafe { slice::from_raw_parts_mut(room, found.end - found.begin) };
    Some(PackedTables { packed, room })
}

/// Within a segment, whose address this is: how much is packed, and from where to where the tables are to be.
struct Found {
    segment: usize,
    packed: usize,
    begin: usize,
    end: usize,
}

/// Only the program itself is looked at, which comes first.
extern "C" fn look(object: *mut dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr gives a valid one.
    let object = unsafe { &*object };
    // SAFETY: it has so many program headers.
    let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    // SAFETY: `packed_tables` gives this pointer to its own variable.
    let found = unsafe { &mut *found.cast::<Option<Found>>() };
    *found = find(usize::try_from(object.dlpi_addr).unwrap_or_default(), headers);
    1
}

/// They are packed if the list of functions, by which unwinding begins, lies behind what the file has of its segment.
fn find(base: usize, headers: &[libc::Elf64_Phdr]) -> Option<Found> {
    let list = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?.p_vaddr;
    let segment = headers.iter().find(|header| {
        header.p_type == libc::PT_LOAD && (header.p_vaddr..header.p_vaddr + header.p_memsz).contains(&list)
    })?;
    let of_segment = |size: u64| usize::try_from(size).ok();
    let (begin, packed) = (of_segment(list - segment.p_vaddr)?, of_segment(segment.p_filesz)?);
    let found =
        Found { segment: base + of_segment(segment.p_vaddr)?, packed, begin, end: of_segment(segment.p_memsz)? };
    (packed <= begin).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u32, address: u64, in_file: u64, in_memory: u64) -> libc::Elf64_Phdr {
        libc::Elf64_Phdr {
            p_type: kind,
            p_flags: libc::PF_R,
            p_offset: 0,
            p_vaddr: address,
            p_paddr: address,
            p_filesz: in_file,
            p_memsz: in_memory,
            p_align: 1,
        }
    }

    #[test]
    fn tables_are_packed_where_their_list_is_not_in_the_file() {
        let code = header(libc::PT_LOAD, 0x1000, 0x500, 0x500);
        let found = |in_file| {
            let tables = header(libc::PT_LOAD, 0x2000, in_file, 0x900);
            find(0x7_0000, &[code, tables, header(libc::PT_GNU_EH_FRAME, 0x2100, 0, 0x80)])
        };
        let Found { segment, packed, begin, end } = found(0xf0).unwrap();
        assert_eq!((segment, packed, begin, end), (0x7_2000, 0xf0, 0x100, 0x900));
        assert!(found(0x900).is_none(), "they lie there as they are");
        assert!(find(0, &[code]).is_none(), "none at all");
    }

    #[test]
    fn this_program_has_its_tables() {
        assert!(packed_tables().is_none());
    }
}
