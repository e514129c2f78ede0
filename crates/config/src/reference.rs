//! `docs/configuration.md`, made from the constants.

use crate::child::{OWN_PREFIX, PASSED_NAMES, PASSED_PREFIXES};
use crate::key::{Described, Shape, variable_of};
use crate::table::{DIRECT, SECTIONS, UNUSED};

const BEGINNING: &str = "\
# Configuration

<!-- Made by `attune-agents config --markdown`; change the constants in `crates/config` instead. -->

Agents read YAML files and environment variables. From the strongest to the weakest:

1. the command line (`--name`),
2. variables `ATTUNE__SECTION__KEY`: `ATTUNE__WORKER__NAME` sets `worker.name`,
3. `config.<environment>.yaml` in the working folder; the environment is `ATTUNE__ENVIRONMENT`, else `development`,
4. the base file: `--config`, else `ATTUNE_CONFIG`, else `config.yaml` in the working folder,
5. the default.

All files are optional; the log says which were used and why others were not. Empty variables count as not set. All
problems are reported together, each with the variable or the file, line and key, and end the program with exit code 78.
A name that nobody knows is warned about, with the nearest one that exists. `attune-agents config` does all this
and nothing else.

Durations are seconds, or carry a unit: `500ms`, `30s`, `2m`, `1h`, `1d`. Sizes are bytes, or carry one: `512KiB`, `10MB`.
A secret is never printed. Instead of holding it, a key may name a file with it: `security.jwt_secret_file`,
`ATTUNE__SECURITY__JWT_SECRET_FILE`.
";

/// The reference page of everything that can be set.
pub fn markdown() -> String {
    let mut page = BEGINNING.to_owned();
    for section in SECTIONS {
        paragraph(&mut page, &format!("## {}\n\n{}\n", section.title, section.doc));
        paragraph(&mut page, "| key and variable | takes | default | meaning |\n|---|---|---|---|\n");
        section.keys.iter().for_each(|key| row(&mut page, *key));
    }
    paragraph(&mut page, "## Variables of their own name\n\n| variable | without it | meaning |\n|---|---|---|\n");
    for variable in DIRECT {
        line(&mut page, &format!("| `{}` | {} | {} |", variable.name, variable.default, variable.doc));
    }
    paragraph(
        &mut page,
        "## Accepted and not used\n\nExisting files hold these; they cause no warning.\n\n| key | why |\n|---|---|\n",
    );
    for (name, why) in UNUSED {
        line(&mut page, &format!("| `{name}` | {why} |"));
    }
    paragraph(&mut page, "## What user code sees of the agent's environment\n\n");
    let names: Vec<String> = PASSED_NAMES.iter().map(|name| format!("`{name}`")).collect();
    let prefixes: Vec<String> = PASSED_PREFIXES.iter().map(|prefix| format!("`{prefix}*`")).collect();
    line(
        &mut page,
        &format!(
            "Only {} and {}, and what `worker.pass_env` or `sensor.pass_env` names. Nothing that begins with `{OWN_PREFIX}`\n\
             ever passes; the variables that the platform promises to actions and sensors are set anew for each of them.",
            names.join(", "),
            prefixes.join(", ")
        ),
    );
    page
}

fn row(page: &mut String, key: &dyn Described) {
    let default = match key.default() {
        "" => "none".to_owned(),
        default => format!("`{default}`"),
    };
    let variable = match key.shape() {
        Shape::Single | Shape::Secret => variable_of(key.path()),
        Shape::TextMap | Shape::JsonMap => format!("{}__NAME", variable_of(key.path())),
    };
    let text = format!(
        "| `{}`<br>`{variable}` | {} | {default} | {} {}. |",
        key.path(),
        key.kind(),
        key.doc(),
        sentence(key.reason())
    );
    line(page, &text);
}

/// With a capital letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

fn paragraph(page: &mut String, text: &str) {
    page.push('\n');
    page.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::keys;

    #[test]
    fn every_default_can_be_read() {
        for key in keys() {
            assert_eq!(key.default_problem(), None, "{}", key.path());
        }
    }

    #[test]
    fn every_key_stands_in_the_page_once_with_its_variable() {
        let page = markdown();
        for key in keys() {
            assert_eq!(page.matches(&format!("| `{}`<br>", key.path())).count(), 1, "{}", key.path());
            assert!(page.contains(&variable_of(key.path())), "{}", key.path());
        }
    }

    #[test]
    fn the_page_in_docs_is_the_one_that_the_code_makes() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
        assert!(
            page == markdown(),
            "docs/configuration.md is stale; make it with: cargo run -- config --markdown > docs/configuration.md"
        );
    }
}
