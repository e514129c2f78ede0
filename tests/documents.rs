//! Commands in the documents: applets, options, services and variables that are named there exist.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program is asked for its help the way a user asks")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

/// What stands for the binary in the documents; the last two are aliases that the quick references make.
const PROGRAMS: [&str; 3] = ["attune-agents", "in_worker", "in_sensor"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let folders = ["docs", "docs/plans"].map(|folder| fs::read_dir(top().join(folder)).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([top().join("README.md"), top().join("CONTRIBUTING.md")]).collect()
}

/// The lines of a page that are code, and what stands between backticks in the others.
fn code(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            found.push(line);
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// The commands of a line, each as words without quotes and the brackets of what may be left out.
fn commands(line: &str) -> Vec<Vec<&str>> {
    let mut commands = vec![Vec::new()];
    for word in line.split_whitespace() {
        match word {
            "#" => break,
            "&&" | "||" | "|" | ";" | "&" | ">" | "\\" => commands.push(Vec::new()),
            _ => {
                let ends = word.ends_with(';');
                let word = word.trim_matches(|character| "[]'\";".contains(character));
                commands.last_mut().unwrap().push(word);
                if ends {
                    commands.push(Vec::new());
                }
            }
        }
    }
    commands
}

/// What follows the name of the program: an applet and its words.
fn call<'a>(command: &'a [&'a str]) -> Option<&'a [&'a str]> {
    if let ["cargo", "run", rest @ ..] = command {
        let (own, of_program) = rest.split_at(rest.iter().position(|word| *word == "--")?);
        return (!own.contains(&"attune-bench")).then(|| &of_program[1..]);
    }
    let is_program = |word: &&str| PROGRAMS.contains(&word.rsplit('/').next().unwrap());
    let place = command.iter().position(is_program)?;
    // The name of a package of the compiler, or of the image whose entrypoint it is.
    match place.checked_sub(1).map(|before| command[before]) {
        Some("-p" | "cd") => None,
        Some("--entrypoint") => command.get(place + 2..),
        _ => command.get(place + 1..),
    }
}

fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(BINARY).args(words).arg("--help").env_clear().output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The help of an applet, or of the one among its commands that the call names.
fn help_of(call: &[&str], known: &mut BTreeMap<String, Option<String>>) -> Option<String> {
    let depth = match call {
        ["packs", _, ..] | ["sensor", "ctl", ..] => 2,
        _ => 1,
    };
    let words = &call[..depth];
    known.entry(words.join(" ")).or_insert_with(|| help(words)).clone()
}

fn has_option(help: &str, option: &str) -> bool {
    help.lines().any(|line| line.trim_start().split([' ', ',']).take(3).any(|word| word == option))
}

#[test]
fn every_command_in_the_documents_names_an_applet_and_options_that_it_has() {
    let (mut known, mut seen, mut wrong) = (BTreeMap::new(), 0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for command in code(&page).into_iter().flat_map(commands) {
            let Some(call @ [applet, ..]) = call(&command) else { continue };
            // Boxes and arrows are no words.
            if !applet.starts_with(|first: char| first.is_ascii()) {
                continue;
            }
            let mut say = |what: String| wrong.push(format!("{}: {what}: {}", path.display(), command.join(" ")));
            if applet.starts_with('-') {
                if !has_option(&help(&[]).unwrap(), applet) {
                    say(format!("no option {applet}"));
                }
                continue;
            }
            seen += 1;
            let Some(help) = help_of(call, &mut known) else {
                say(format!("no applet {applet}"));
                continue;
            };
            let own = call.iter().take_while(|word| **word != "--");
            for option in own.filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap()) {
                if !has_option(&help, option) {
                    say(format!("no option {option}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 60, "the walk found only {seen} commands");
}

fn compose_files() -> Vec<String> {
    let names = ["docker-compose.yaml", "docker-compose.agent.yaml", "docker-compose.platform.yaml"];
    names.map(|name| fs::read_to_string(top().join("compose").join(name)).unwrap()).into()
}

/// The keys directly below `services:`.
fn services() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in compose_files() {
        let part = text.split_once("\nservices:\n").unwrap().1;
        let part = part.lines().take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
        let keys = part.filter_map(|line| line.strip_prefix("  ")?.split_once(':')).map(|(key, _)| key);
        found.extend(keys.filter(|key| !key.starts_with([' ', '#'])).map(str::to_owned));
    }
    found
}

/// The services that a call of Compose is about; none for what is not about services.
fn services_of<'a>(words: &'a [&'a str]) -> Vec<&'a str> {
    // Options of which the next word is the value.
    let takes_value = |word: &str| matches!(word, "-f" | "--file" | "--profile" | "--env-file");
    let mut plain = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if takes_value(word) && !plain.contains(&"logs") {
            rest.next();
        } else if !word.starts_with('-') {
            plain.push(*word);
        }
    }
    match plain.as_slice() {
        ["exec" | "run", service, ..] => vec![service],
        ["up" | "build" | "restart" | "stop" | "logs", services @ ..] => services.to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn every_call_of_compose_in_the_documents_names_services_and_variables_that_there_are() {
    let (services, files) = (services(), compose_files().concat());
    assert!(services.len() > 12, "{services:?}");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for command in code(&page).into_iter().flat_map(commands) {
            let variables: Vec<&str> =
                command.iter().map_while(|word| word.split_once('=')).map(|(name, _)| name).collect();
            let (["dc", words @ ..] | ["docker", "compose", words @ ..]) = &command[variables.len()..] else {
                continue;
            };
            let unknown =
                services_of(words).into_iter().inspect(|_| seen += 1).filter(|name| !services.contains(*name));
            let unset = variables.iter().copied().filter(|name| !files.contains(&format!("${{{name}:")));
            wrong.extend(unknown.chain(unset).map(|name| format!("{}: {name}: {}", path.display(), command.join(" "))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 40, "the walk found only {seen} services");
}
