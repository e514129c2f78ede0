//! The tables for unwinding, which the shipped binary holds compressed.
//!
//! They are a tenth of the program, and nobody reads them until something panics. `scripts/unwind-tables` packs them when the
//! program is linked and leaves room for them in memory; here they are made anew before the first panic unwinds, byte for byte
//! what was compared with the linker's. In a program that was built in another way this does nothing.
#![expect(clippy::disallowed_methods, reason = "the one place where hooks are set")]

use std::io::{self, Read as _};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use flate2::Crc;
use flate2::read::ZlibDecoder;

use crate::output;

/// From now on the usual hook of panics finds the tables. To be called before anything can panic.
pub(crate) fn prepare() {
    set_hook(panic::take_hook());
}

/// [`panic::set_hook`], for a hook that finds the tables made, as does what unwinds after it.
pub(crate) fn set_hook(hook: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        make_ready();
        hook(info);
    }));
}

/// The tables are there when this returns. Costs a few milliseconds once, and 1.3 MB.
fn make_ready() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(tables) = attune_sys::packed_tables() else { return };
        if let Err(error) = unpack(tables.packed, tables.room) {
            // A panic that finds no tables ends the process.
            tables.room.fill(0);
            output::tell(match error.kind() {
                io::ErrorKind::OutOfMemory => b"attune-agents: no memory for the tables for unwinding\n".as_slice(),
                _ => b"attune-agents: the tables for unwinding are damaged; install the program anew\n",
            });
        } else if let Err(error) = tables.seal() {
            output::tell(format!("attune-agents: unwinding: {error}\n").as_bytes());
        }
    });
}

/// How many streams are packed.
const STREAMS: usize = 11;

/// Bytes of the list of functions before its first entry.
const LIST_HEAD: usize = 12;

/// What comes behind the sites of each function: to catch any panic is action 1, to end there is action 3.
const ACTIONS: [u8; 4] = [0x01, 0x00, 0x7f, 0x00];

/// Makes of `packed` the tables as they are described in the Linux Standard Base ("Exception Frames"): `.eh_frame_hdr`,
/// `.eh_frame` and `.gcc_except_table`, one behind the other. Fails if it is not what `scripts/unwind-tables` has written.
fn unpack(packed: &[u8], room: &mut [u8]) -> io::Result<()> {
    let mut all = Vec::new();
    ZlibDecoder::new(packed).read_to_end(&mut all)?;
    checked(&all, room).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn checked(all: &[u8], room: &mut [u8]) -> Option<()> {
    let mut rest = Stream(all);
    let [address, functions, frames, size, checksum] = rest.words()?;
    let mut streams = [const { Stream(&[]) }; STREAMS];
    let lengths: [u32; STREAMS] = rest.words()?;
    for (stream, length) in streams.iter_mut().zip(lengths) {
        *stream = Stream(rest.take(index(length)?)?);
    }
    let room = room.get_mut(..index(size)?)?;
    make(streams, address, functions, frames, room)?;
    let mut sum = Crc::new();
    sum.update(room);
    (sum.sum() == checksum).then_some(())
}

/// `address` is that of the list in the program as it was linked, to which all others are relative.
fn make(streams: [Stream<'_>; STREAMS], address: u32, functions: u32, frames: u32, room: &mut [u8]) -> Option<()> {
    let [commons, mut forms, mut gaps, mut lengths, mut program_lengths, mut programs, mut sites @ ..] = streams;
    let begin = LIST_HEAD + 8 * index(functions)?;
    let (mut list, mut frame, mut site) = (Place(0), Place(begin), Place(begin + index(frames)?));
    // The first version; what the pointer to the frames, the count and the entries look like.
    list.put(room, &[1, 0x1b, 0x03, 0x3b])?;
    list.put(room, &number(begin - 4)?.to_le_bytes())?;
    list.put(room, &functions.to_le_bytes())?;
    frame.put(room, commons.0)?;
    let commons = commons.records()?;
    let mut code = 0_u32;
    for _ in 0..functions {
        let form = forms.byte()?;
        let &(common, has_pointer) = commons.get(usize::from(form >> 1))?;
        code = code.checked_add(gaps.number()?)?;
        let length = lengths.number()?;
        let program = programs.take(index(program_lengths.number()?)?)?;
        let head = if has_pointer { 21 } else { 17 };
        let bytes = (head + program.len()).next_multiple_of(4);
        let at = frame.0;
        list.put(room, &code.wrapping_sub(address).to_le_bytes())?;
        list.put(room, &number(at)?.to_le_bytes())?;
        frame.put(room, &number(bytes - 4)?.to_le_bytes())?;
        frame.put(room, &number(at + 4 - begin - common)?.to_le_bytes())?;
        frame.put(room, &code.wrapping_sub(address.wrapping_add(number(at + 8)?)).to_le_bytes())?;
        frame.put(room, &length.to_le_bytes())?;
        frame.put(room, &[if has_pointer { 4 } else { 0 }])?;
        let has_sites = form & 1 == 1;
        if has_pointer {
            let pointer = if has_sites { number(site.0 - frame.0)? } else { 0 };
            frame.put(room, &pointer.to_le_bytes())?;
        }
        frame.put(room, program)?;
        // Behind the program are zeros, which the room has.
        frame = Place(at + bytes);
        if has_sites {
            site.put(room, &sites_of(&mut sites, length)?)?;
        }
        code = code.checked_add(length)?;
    }
    Some(())
}

/// Where the calls of a function are, and where their panics go on, in the form that the standard library reads.
fn sites_of(streams: &mut [Stream<'_>; 5], length: u32) -> Option<Vec<u8>> {
    let [counts, skips, spans, pads, actions] = streams;
    let mut found = Vec::new();
    let (mut at, mut last) = (0_u32, length);
    for _ in 0..counts.number()? {
        let begin = at.checked_add(skips.number()?)?;
        let span = spans.number()?;
        at = begin.checked_add(span)?;
        let (pad, action) = match pads.number()?.checked_sub(1) {
            None => (0, 0),
            // Distances are told forth and back in turn: 0, -1, 1, -2, ...
            Some(step) => {
                last = last.wrapping_add((step >> 1) ^ 0_u32.wrapping_sub(step & 1));
                (last, actions.byte()?.into())
            }
        };
        for value in [begin, span, pad, action] {
            put_number(&mut found, value);
        }
    }
    // No landing pads elsewhere, no types, and numbers of any length.
    let mut table = vec![0xff, 0xff, 0x01];
    put_number(&mut table, number(found.len())?);
    table.append(&mut found);
    table.extend(ACTIONS);
    Some(table)
}

/// A number as DWARF has it (LEB128): seven bits a byte, the lowest first.
fn put_number(to: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        to.extend(value.to_le_bytes().first().map(|byte| byte | 0x80));
        value >>= 7;
    }
    to.extend(value.to_le_bytes().first());
}

fn index(value: u32) -> Option<usize> {
    value.try_into().ok()
}

fn number(value: usize) -> Option<u32> {
    value.try_into().ok()
}

/// Where the next bytes go.
struct Place(usize);

impl Place {
    fn put(&mut self, room: &mut [u8], bytes: &[u8]) -> Option<()> {
        let end = self.0 + bytes.len();
        room.get_mut(self.0..end)?.copy_from_slice(bytes);
        self.0 = end;
        Some(())
    }
}

/// What is left of one.
struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn words<const COUNT: usize>(&mut self) -> Option<[u32; COUNT]> {
        let mut words = [0; COUNT];
        for word in &mut words {
            let (bytes, rest) = self.0.split_first_chunk()?;
            *word = u32::from_le_bytes(*bytes);
            self.0 = rest;
        }
        Some(words)
    }

    /// See [`put_number`].
    fn number(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// What is common to many frames: where each stands, and whether their frames point to sites.
    fn records(mut self) -> Option<Vec<(usize, bool)>> {
        let mut found = Vec::new();
        let mut at = 0;
        while !self.0.is_empty() {
            let [length] = self.words()?;
            // Behind its number and version: the letters that say what the frames have.
            let record = self.take(index(length)?)?;
            let letters = record.get(5..)?.split(|byte| *byte == 0).next()?;
            found.push((at, letters.contains(&b'L')));
            at += 4 + record.len();
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    const PLAIN: &[u8] = b"\x0c\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01";
    const WITH_SITES: &[u8] = b"\x10\0\0\0\0\0\0\0\x01zPLR\0\x01\x78\x10\x07\x9b\x1b";
    const ADDRESS: u32 = 0x1000;

    /// Two functions, at 0x100 and 0x120: the second is caught from at its second call.
    fn streams() -> [Vec<u8>; STREAMS] {
        let programs = [0x41, 0x0e, 0x10, 0x0e, 0x20];
        [
            [PLAIN, WITH_SITES].concat(),
            vec![0, 3],
            vec![0x80, 0x02, 0x10],
            vec![0x10, 0xc0, 0x00],
            vec![3, 2],
            programs.to_vec(),
            vec![2],
            vec![4, 1],
            vec![5, 6],
            // None; and 16 before the end, which is 31 in the order of distances, and one more.
            vec![0, 32],
            vec![1],
        ]
    }

    fn tables() -> Vec<u8> {
        let (first, second) = (28 + 36, 28 + 36 + 20);
        let list: [u32; 7] =
            [0x3b03_1b01, 28 - 4, 2, 0x100_u32.wrapping_sub(ADDRESS), first, 0x120_u32.wrapping_sub(ADDRESS), second];
        let mut found: Vec<u8> = list.iter().flat_map(|word| word.to_le_bytes()).collect();
        found.extend([PLAIN, WITH_SITES].concat());
        let record = |words: [u32; 4], rest: &[u8]| {
            let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            [words, rest.to_vec()].concat()
        };
        let begin = |code: u32, at: u32| code.wrapping_sub(ADDRESS + at + 8);
        found.extend(record([16, first + 4 - 28, begin(0x100, first), 0x10], &[0, 0x41, 0x0e, 0x10]));
        // Its sites lie behind the zeros that end the frames.
        let pointer = second + 24 + 4 - (second + 17);
        let rest = [vec![4], pointer.to_le_bytes().to_vec(), vec![0x0e, 0x20, 0]].concat();
        found.extend(record([20, second + 4 - 28 - 16, begin(0x120, second), 0x40], &rest));
        found.extend([0; 4]);
        found.extend([0xff, 0xff, 0x01, 8, 4, 5, 0, 0, 10, 6, 0x30, 1, 1, 0, 0x7f, 0]);
        found
    }

    fn packed(streams: &[Vec<u8>; STREAMS]) -> Vec<u8> {
        let tables = tables();
        let mut sum = Crc::new();
        sum.update(&tables);
        let frames = 36 + 20 + 24 + 4;
        let facts = [ADDRESS, 2, frames, number(tables.len()).unwrap(), sum.sum()];
        let lengths = streams.iter().map(|stream| number(stream.len()).unwrap());
        let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
        for word in facts.into_iter().chain(lengths) {
            to.write_all(&word.to_le_bytes()).unwrap();
        }
        to.write_all(&streams.concat()).unwrap();
        to.finish().unwrap()
    }

    #[test]
    fn the_tables_are_made_of_what_is_packed() {
        let mut room = vec![0; tables().len() + 8];
        unpack(&packed(&streams()), &mut room).unwrap();
        assert_eq!(room, [tables(), vec![0; 8]].concat());
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let size = tables().len();
        let whole = packed(&streams());
        assert!(unpack(whole.get(..whole.len() - 9).unwrap(), &mut vec![0; size]).is_err(), "cut");
        assert!(unpack(&whole, &mut vec![0; size - 1]).is_err(), "no room");
        for stream in 0..STREAMS {
            let (mut shorter, mut other) = (streams(), streams());
            shorter.get_mut(stream).unwrap().pop();
            assert!(unpack(&packed(&shorter), &mut vec![0; size]).is_err(), "stream {stream} is too short");
            *other.get_mut(stream).unwrap().first_mut().unwrap() ^= 0x41;
            assert!(unpack(&packed(&other), &mut vec![0; size]).is_err(), "stream {stream} is another");
        }
    }
}
