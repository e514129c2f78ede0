//! The report of `--detect-only`: text for people, with the runtimes line last, and JSON for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::advertise::Advertised;
use crate::detect::Detected;
use crate::image::Image;
use crate::probe_table::PROBES;

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// `ATTUNE_WORKER_RUNTIMES` or `ATTUNE_SENSOR_RUNTIMES`.
    pub variable: &'a str,
    /// A full detection.
    pub detected: &'a [Detected],
    /// What the variable means, when it is set.
    pub in_force: Option<&'a Advertised>,
    /// How long detection took.
    pub took: Duration,
}

impl Report<'_> {
    /// For programs.
    pub fn json(&self) -> Value {
        let names: Vec<&str> = self.detected.iter().map(|found| found.name).collect();
        json!({
            "variable": self.variable,
            "value": names.join(","),
            "override": self.in_force.map(|in_force| json!({
                "value": in_force.handed_on,
                "runtimes": in_force.runtimes,
                "warnings": in_force.warnings,
            })),
            "runtimes": self.detected.iter().map(one).collect::<Vec<_>>(),
            "took_ms": milliseconds(self.took),
        })
    }
}

/// For people; the shape of the lines is a fact of the platform.
impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = self.variable;
        if let Some(in_force) = self.in_force {
            writeln!(out, "NOTE: {variable} is set — auto-detection was skipped during normal startup.")?;
            writeln!(out, "      Showing what auto-detection would find on this system:")?;
            writeln!(out, "      In force instead: {}", listed(&in_force.runtimes))?;
            for warning in &in_force.warnings {
                writeln!(out, "      WARNING: {warning}")?;
            }
            writeln!(out)?;
        }
        writeln!(out, "=== Attune Agent Runtime Detection Report ===\n")?;
        if self.detected.is_empty() {
            write_nothing_found(out)?;
        } else {
            writeln!(out, "Detected {} runtime(s):\n", self.detected.len())?;
        }
        for found in self.detected {
            let version = found.version.as_deref().unwrap_or("unknown version");
            writeln!(out, "  ✓ {:<10} {} ({version})", found.name, found.path.display())?;
        }
        let names: Vec<&str> = self.detected.iter().map(|found| found.name).collect();
        writeln!(out, "\n{variable}={}\n", names.join(","))
    }
}

fn write_nothing_found(out: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(out, "No runtimes detected!\n")?;
    writeln!(out, "Neither PATH nor the usual prefixes hold an interpreter that this agent knows.")?;
    writeln!(out, "Install one of these, or name the runtimes yourself with the variable below:")?;
    for probe in PROBES {
        writeln!(out, "  - {}: {}", probe.name, probe.binaries.join(", "))?;
    }
    Ok(())
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no runtime".to_owned() } else { names.join(", ") }
}

fn one(found: &Detected) -> Value {
    let script = match &found.image {
        Image::Script { interpreter, argument } => {
            let argument = argument.as_ref().map(|argument| format!(" {argument}")).unwrap_or_default();
            Some(format!("{}{argument}", interpreter.display()))
        }
        Image::Elf { .. } | Image::Unknown => None,
    };
    let tools: serde_json::Map<String, Value> =
        found.tools.iter().map(|tool| (tool.name.to_owned(), json!(tool.available))).collect();
    json!({
        "name": found.name,
        "path": found.path.display().to_string(),
        "real_path": found.real_path.display().to_string(),
        "version": found.version,
        "libc": found.image.libc().as_str(),
        "architecture": found.image.architecture(),
        "script": script,
        "tools": tools,
        "probe_ms": milliseconds(found.took),
        "problem": found.problem,
    })
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advertise::{Sources, advertise};
    use crate::tools::Tool;

    fn found(name: &'static str, path: &str, version: Option<&str>) -> Detected {
        Detected {
            name,
            path: path.into(),
            real_path: path.into(),
            version: version.map(str::to_owned),
            image: Image::Script { interpreter: "/usr/bin/env".into(), argument: Some("bash".to_owned()) },
            tools: vec![Tool { name: "venv", available: Some(true) }],
            took: Duration::from_micros(1234),
            problem: None,
        }
    }

    fn report<'a>(detected: &'a [Detected], in_force: Option<&'a Advertised>) -> Report<'a> {
        Report { variable: "ATTUNE_SENSOR_RUNTIMES", detected, in_force, took: Duration::from_millis(7) }
    }

    #[test]
    fn the_text_is_the_platform_s() {
        let detected =
            [found("shell", "/bin/bash", Some("5.2.15")), found("python", "/usr/local/bin/python3", Some("3.12.4"))];
        let expected = "\
=== Attune Agent Runtime Detection Report ===

Detected 2 runtime(s):

  ✓ shell      /bin/bash (5.2.15)
  ✓ python     /usr/local/bin/python3 (3.12.4)

ATTUNE_SENSOR_RUNTIMES=shell,python

";
        assert_eq!(report(&detected, None).to_string(), expected);
        let unknown = report(&[found("perl", "/usr/bin/perl", None)], None).to_string();
        assert!(unknown.contains("  ✓ perl       /usr/bin/perl (unknown version)\n"), "{unknown}");
    }

    #[test]
    fn an_empty_machine_is_told_what_could_be_installed() {
        let text = report(&[], None).to_string();
        assert!(
            text.starts_with("=== Attune Agent Runtime Detection Report ===\n\nNo runtimes detected!\n\n"),
            "{text}"
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("  - ")).count(), 8);
        assert!(text.ends_with("\n\nATTUNE_SENSOR_RUNTIMES=\n\n"), "{text}");
    }

    #[test]
    fn an_override_is_shown_in_front_of_the_full_detection() {
        let detected = [found("shell", "/bin/bash", None)];
        let in_force = advertise(&Sources {
            variable: "ATTUNE_SENSOR_RUNTIMES",
            override_value: Some("native,ruby"),
            detected: &detected,
            configured: &attune_model::JsonMap::new(),
        });
        let text = report(&detected, Some(&in_force)).to_string();
        let note = "NOTE: ATTUNE_SENSOR_RUNTIMES is set — auto-detection was skipped during normal startup.\n      \
                    Showing what auto-detection would find on this system:\n      In force instead: native, ruby\n      \
                    WARNING: ATTUNE_SENSOR_RUNTIMES names ruby";
        assert!(text.starts_with(note), "{text}");
        assert!(text.ends_with("\nATTUNE_SENSOR_RUNTIMES=shell\n\n"), "{text}");
        let json = report(&detected, Some(&in_force)).json();
        assert_eq!(json["override"]["runtimes"], json!(["native", "ruby"]));
    }

    #[test]
    fn the_json_has_every_detail() {
        let json = report(&[found("python", "/usr/bin/python3", Some("3.12.4"))], None).json();
        assert_eq!(json["value"], "python");
        assert_eq!(json["took_ms"], 7.0);
        let expected = json!({
            "name": "python", "path": "/usr/bin/python3", "real_path": "/usr/bin/python3", "version": "3.12.4",
            "libc": "unknown", "architecture": null, "script": "/usr/bin/env bash", "tools": {"venv": true},
            "probe_ms": 1.23, "problem": null,
        });
        assert_eq!(json["runtimes"][0], expected);
    }
}
