//! The environment of a sensor process (names and values: facts of the platform; our additions are in `docs/writing-packs.md`).
//!
//! It is built from nothing: what the host lets through, then the runtime's variables, then the platform's own, which
//! nobody can override.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use attune_model::Secret;
use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::config::SensorConfig;
use crate::target::Target;

/// What a sensor is told when no broker is configured (a fact of the platform).
const DEFAULT_MQ_URL: &str = "amqp://guest:guest@localhost:5672";
/// The kernel's limit for one string of an environment, its name and final NUL included.
const LONGEST_STRING: usize = 128 * 1024;

/// A variable that the kernel would refuse.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum VariableError {
    #[error("variable {name} is {size} bytes long and the kernel takes {LONGEST_STRING}; use fewer or smaller rules")]
    TooLong { name: String, size: usize },
    #[error("variable {name} holds a NUL byte")]
    Nul { name: String },
}

/// The platform's variables of a sensor.
pub(crate) fn reserved(
    config: &SensorConfig,
    target: &Target,
    token: &Secret,
) -> Result<Vec<(OsString, OsString)>, VariableError> {
    let sensor = &target.sensor;
    let mq_url = config.mq_url.as_ref().map_or(DEFAULT_MQ_URL, |url| url.expose());
    let settings = sensor.config.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
    let variables: [(&str, OsString); 12] = [
        ("ATTUNE_API_URL", config.api_url.as_str().into()),
        ("ATTUNE_API_TOKEN", token.expose().into()),
        ("ATTUNE_SENSOR_ID", sensor.id.to_string().into()),
        ("ATTUNE_SENSOR_REF", sensor.r#ref.as_str().into()),
        ("ATTUNE_SENSOR_TRIGGERS", target.input.rules_json.as_str().into()),
        ("ATTUNE_MQ_URL", mq_url.into()),
        ("ATTUNE_MQ_EXCHANGE", "attune.events".into()),
        ("ATTUNE_ARTIFACTS_DIR", config.paths.artifacts.as_os_str().into()),
        ("ATTUNE_LOG_LEVEL", "info".into()),
        // Ours: what the platform's variables leave out.
        ("ATTUNE_AGENT_BIN", config.paths.agent_binary.as_os_str().into()),
        ("ATTUNE_SENSOR_CONFIG", settings.into()),
        ("ATTUNE_SENSOR_TRIGGER_REFS", target.input.rule_triggers_json.as_str().into()),
    ];
    let variables: Vec<_> = variables.into_iter().map(|(name, value)| (OsString::from(name), value)).collect();
    check(&variables)?;
    Ok(variables)
}

/// The broker's password as the sensor's variables have it, and as it is.
pub(crate) fn broker_secrets(config: &SensorConfig) -> Vec<String> {
    let password = config.mq_url.as_ref().and_then(|url| password_in(url.expose()));
    password.map_or_else(Vec::new, |password| {
        vec![password.to_owned(), percent_decode_str(password).decode_utf8_lossy().into_owned()]
    })
}

fn password_in(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let (_name, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    Some(password)
}

/// What a sensor needs to take a new token while it runs, and to say how it is.
pub(crate) fn private(token: &Path, notify: &Path, watchdog: Duration) -> [(OsString, OsString); 3] {
    [
        ("ATTUNE_API_TOKEN_FILE".into(), token.into()),
        ("NOTIFY_SOCKET".into(), notify.into()),
        ("WATCHDOG_USEC".into(), watchdog.as_micros().to_string().into()),
    ]
}

/// `base`, over it `runtime`, over that `reserved`.
pub(crate) fn layered(
    base: &[(OsString, OsString)],
    runtime: &[(OsString, OsString)],
    reserved: Vec<(OsString, OsString)>,
) -> Result<Vec<(OsString, OsString)>, VariableError> {
    let mut variables: Vec<(OsString, OsString)> = Vec::with_capacity(base.len() + runtime.len() + reserved.len());
    for (name, value) in base.iter().chain(runtime).cloned().chain(reserved) {
        match variables.iter_mut().find(|(present, _)| *present == name) {
            Some((_, present)) => *present = value,
            None => variables.push((name, value)),
        }
    }
    check(&variables)?;
    Ok(variables)
}

fn check(variables: &[(OsString, OsString)]) -> Result<(), VariableError> {
    for (name, value) in variables {
        let shown = || name.to_string_lossy().into_owned();
        let size = name.len() + value.len() + "=\0".len();
        if size > LONGEST_STRING {
            return Err(VariableError::TooLong { name: shown(), size });
        }
        let has_nul = |text: &OsStr| text.as_bytes().contains(&0);
        if has_nul(name) || has_nul(value) {
            return Err(VariableError::Nul { name: shown() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (OsString, OsString) {
        (name.into(), value.into())
    }

    #[test]
    fn the_platforms_variables_win_over_the_runtimes_and_those_over_the_hosts() {
        let variables = layered(
            &[pair("PATH", "/bin"), pair("LANG", "C")],
            &[pair("PATH", "/env/bin"), pair("ATTUNE_API_TOKEN", "forged")],
            vec![pair("ATTUNE_API_TOKEN", "real")],
        )
        .unwrap();
        assert_eq!(variables, [pair("PATH", "/env/bin"), pair("LANG", "C"), pair("ATTUNE_API_TOKEN", "real")]);
    }

    #[test]
    fn a_string_that_the_kernel_refuses_is_named() {
        let long = "x".repeat(LONGEST_STRING - "A=".len());
        let error = layered(&[], &[], vec![pair("A", &long)]).unwrap_err();
        assert!(error.to_string().contains("variable A is 131073 bytes"), "{error}");
        assert!(layered(&[], &[], vec![pair("A", &long[1..])]).is_ok());
        assert!(layered(&[], &[pair("B", "a\0b")], Vec::new()).unwrap_err().to_string().contains('B'));
    }
}
