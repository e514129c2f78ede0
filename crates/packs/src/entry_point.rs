//! What runs a component's code, and whether that code is there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component as Part, Path};

use attune_model::runtime_name;

use crate::component::Component;
use crate::content::ComponentKind;

/// The runtime that a component asks for.
#[derive(Debug)]
pub(crate) struct Runner {
    /// A ref such as `core.python`, or the text as written when it is none of the names that the platform folds.
    pub(crate) name: String,
    is_native: bool,
    is_shell: bool,
}

impl Runner {
    fn named(text: &str) -> Self {
        let folded = runtime_name::fold(text);
        // The core pack calls this one by another name than everybody else.
        let known = runtime_name::lookup(text).map(|known| match known.name {
            "node" => "core.nodejs".to_owned(),
            name => format!("core.{name}"),
        });
        let name = known.unwrap_or_else(|| text.trim().to_owned());
        Self {
            is_native: folded == runtime_name::NATIVE || name == "core.native",
            is_shell: folded == "shell" || name == "core.shell",
            name,
        }
    }

    /// `runner_type` of an action: when missing by the extension of its code, else shell.
    pub(crate) fn of_action(component: &Component<'_>) -> Self {
        let fields = &component.fields;
        if let Some(text) = fields.text("runner_type").filter(|text| !text.trim().is_empty()) {
            return Self::named(&text);
        }
        let entry_point = fields.text("entry_point").unwrap_or_default();
        let by_extension = runtime_name::KNOWN
            .iter()
            .find(|known| known.file_extension.is_some_and(|extension| entry_point.ends_with(extension)));
        match by_extension {
            Some(known) if known.name != "shell" => {
                let name = known.name;
                let message = format!(
                    "missing, taken as {name} from the file's extension; write it, the platform's loaders disagree"
                );
                fields.warning("runner_type", message);
                Self::named(name)
            }
            _ => Self::named("shell"),
        }
    }

    /// `runner_type` of a sensor: when missing native.
    pub(crate) fn of_sensor(component: &Component<'_>) -> Self {
        let written = component.fields.text("runner_type").filter(|text| !text.trim().is_empty());
        Self::named(written.as_deref().unwrap_or(runtime_name::NATIVE))
    }
}

/// The file in `actions/`, or inline shell text.
pub(crate) fn of_action(component: &Component<'_>, runner: &Runner) -> Option<String> {
    let written = component.fields.text("entry_point").filter(|text| !text.trim().is_empty());
    let Some(entry_point) = written.or_else(|| guess(component)) else {
        component.fields.error("entry_point", "required, but missing");
        return None;
    };
    if runner.is_shell && is_inline(component, &entry_point) {
        return Some(entry_point);
    }
    file(component, runner, entry_point)
}

/// The file in `sensors/`.
pub(crate) fn of_sensor(component: &Component<'_>, runner: &Runner) -> Option<String> {
    let entry_point = component.fields.required_text("entry_point")?;
    if entry_point.contains("://") {
        component.fields.error("entry_point", "must be a file in sensors/, not an address");
        return None;
    }
    file(component, runner, entry_point)
}

/// `<name>` with a known extension, as one of the platform's loaders guesses, when there is such a file.
fn guess(component: &Component<'_>) -> Option<String> {
    let name = component.fields.text("name").or_else(|| component.fields.text("ref"))?;
    let name = name.rsplit('.').next().unwrap_or(&name).to_owned();
    let extensions = runtime_name::KNOWN.iter().filter_map(|known| known.file_extension);
    let files = extensions.map(|extension| format!("{name}{extension}"));
    let found = files.into_iter().find(|file| code_folder(component).join(file).is_file())?;
    component.fields.warning("entry_point", format!("missing, taken as {found:?}; write it"));
    Some(found)
}

fn code_folder(component: &Component<'_>) -> std::path::PathBuf {
    component.folder.join(component.kind.folder())
}

/// Shell text is what is no file: it has blanks or lines, or nothing that looks like a path or an extension.
fn is_inline(component: &Component<'_>, entry_point: &str) -> bool {
    if code_folder(component).join(entry_point).is_file() {
        return false;
    }
    let looks_like_a_file = !entry_point.contains(char::is_whitespace)
        && (entry_point.contains('/') || Path::new(entry_point).extension().is_some());
    !looks_like_a_file
}

fn file(component: &Component<'_>, runner: &Runner, entry_point: String) -> Option<String> {
    let fields = &component.fields;
    let entry_point = without_folder(component, entry_point);
    let leaves = Path::new(&entry_point).components().any(|part| !matches!(part, Part::Normal(_) | Part::CurDir));
    if leaves {
        fields.error("entry_point", format!("{entry_point:?} leaves the folder {}/", component.kind.folder()));
        return None;
    }
    let path = code_folder(component).join(&entry_point);
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) => {
            fields.error("entry_point", format!("{}: {error}", path.display()));
            return None;
        }
    };
    if !metadata.is_file() {
        fields.error("entry_point", format!("{} is not a file", path.display()));
        return None;
    }
    if runner.is_native && metadata.permissions().mode() & 0o111 == 0 {
        fields.error("entry_point", format!("{} is not executable, run `chmod +x` on it", path.display()));
        return None;
    }
    Some(entry_point)
}

/// Packs in circulation write `actions/x.sh`; agents add that folder themselves.
fn without_folder(component: &Component<'_>, entry_point: String) -> String {
    let prefix = format!("{}/", ComponentKind::folder(component.kind));
    match entry_point.strip_prefix(&prefix) {
        Some(rest) if !code_folder(component).join(&entry_point).is_file() => {
            let message = format!("read as {rest:?}: it is looked for in {prefix} anyway, leave that away");
            component.fields.warning("entry_point", message);
            rest.to_owned()
        }
        _ => entry_point,
    }
}
