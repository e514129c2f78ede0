//! Archives, good and bad.

use std::io::Write as _;
use std::time::SystemTime;

use attune_model::clock::SystemClock;
use attune_security::Agent;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::*;
use crate::{AgentToken, Client, ClientConfig};

/// What an archive is made of.
enum Item<'a> {
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Other(&'a str, EntryType),
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for item in items {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        let (name, kind, content, target) = match item {
            Item::File(name, content) => (name, EntryType::Regular, *content, None),
            Item::Link(name, target) => (name, EntryType::Symlink, "", Some(target)),
            Item::HardLink(name, target) => (name, EntryType::Link, "", Some(target)),
            Item::Other(name, kind) => (name, *kind, "", None),
        };
        header.set_entry_type(kind);
        header.set_size(content.len().try_into().unwrap());
        // Written by hand: the library would refuse to make what is to be refused here.
        let bytes = name.as_bytes();
        header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        if let Some(target) = target {
            header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_pack_is_unpacked_with_its_links_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("new");
    let items = [
        Item::Other("pax_global_header", EntryType::XGlobalHeader),
        Item::Other("demo/", EntryType::Directory),
        Item::File("demo/pack.yaml", "ref: demo"),
        Item::File("./demo/actions/run.sh", "exit 0"),
        Item::Link("demo/actions/also.sh", "run.sh"),
        Item::Link("demo/actions/manifest", "../pack.yaml"),
        Item::HardLink("demo/actions/hard.sh", "demo/actions/run.sh"),
    ];
    unpack(archive(&items).as_slice(), "demo", &target).unwrap();
    for file in ["run.sh", "also.sh", "hard.sh"] {
        assert_eq!(fs::read_to_string(target.join("demo/actions").join(file)).unwrap(), "exit 0");
    }
    assert_eq!(fs::read_to_string(target.join("demo/actions/manifest")).unwrap(), "ref: demo");
    assert_eq!(target.join("demo/actions/run.sh").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn nothing_in_an_archive_reaches_outside() {
    for (items, problem) in [
        (vec![Item::File("/etc/passwd", "x")], "is an absolute path"),
        (vec![Item::File("demo/../../x", "x")], "has .. in its path"),
        (vec![Item::File("other/x", "x")], "lies outside the folder of the pack"),
        (vec![Item::Link("demo/x", "/etc")], "is a link that leads out of the pack"),
        (vec![Item::Link("demo/a/x", "../../etc")], "is a link that leads out of the pack"),
        (vec![Item::Link("demo/d", "."), Item::Link("demo/x", "d/..")], "is a link that leads out of the pack"),
        (vec![Item::HardLink("demo/x", "../etc/passwd")], "is a link that leads out of the pack"),
        (vec![Item::HardLink("demo/x", "/etc/passwd")], "is a link that leads out of the pack"),
        (vec![Item::Link("demo/d", "e"), Item::File("demo/d/x", "x")], "lies behind a link or a file"),
        (vec![Item::Other("demo/pipe", EntryType::Fifo)], "is neither file, folder nor link"),
        (vec![Item::Other("demo/disk", EntryType::Block)], "is neither file, folder nor link"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(archive(&items).as_slice(), "demo", &dir.path().join("new")).unwrap_err().to_string();
        assert!(error.ends_with(problem), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing beside the target");
    }
}

#[test]
fn an_archive_that_would_fill_the_disk_is_refused() {
    let mut header = Header::new_gnu();
    header.set_path("demo/huge").unwrap();
    header.set_size(LIMIT_BYTES + 1);
    header.set_cksum();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(header.as_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = unpack(gzip.finish().unwrap().as_slice(), "demo", &dir.path().join("new")).unwrap_err();
    assert!(matches!(error, PackError::TooLarge(_)), "{error}");
}

#[test]
fn a_new_pack_takes_the_place_of_the_old_one_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (new, place, old) = (dir.path().join("new"), dir.path().join("demo"), dir.path().join("old"));
    for (folder, file) in [(&new, "new.sh"), (&place, "vanished.sh")] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join(file), "").unwrap();
    }
    swap(&new, &place, &old).unwrap();
    assert!(place.join("new.sh").exists() && !place.join("vanished.sh").exists());
    // What cannot be put in its place leaves the old one.
    let error = swap(&dir.path().join("missing"), &place, &dir.path().join("older")).unwrap_err();
    assert_eq!(error.to_string(), "failed to put the pack in its place");
    assert!(place.join("new.sh").exists());
}

#[test]
fn what_killed_processes_left_goes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::build(&ClientConfig::default()).unwrap();
    let token = AgentToken::new(Agent::Worker, None, Arc::new(SystemClock));
    let sync = PackSync::new(dir.path(), PlatformApi::new(client, "http://api", token));
    let rests = [sync.beside("demo", "new"), sync.beside("demo", "old")];
    let others = ["demo", ".git", ".demo.new", ".demo.x.1.old", "demo.1.1.new"].map(|name| dir.path().join(name));
    let young = sync.beside("demo", "new");
    for folder in rests.iter().chain(&others).chain([&young]) {
        fs::create_dir_all(folder.join("demo")).unwrap();
        if *folder != young {
            let long_ago = SystemTime::now() - REST_AGE * 2;
            fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
        }
    }
    sync.sweep().unwrap();
    assert!(rests.iter().all(|rest| !rest.exists()));
    assert!(others.iter().chain([&young]).all(|folder| folder.exists()));
}
