//! States of rows and the transitions between them. The texts are the platform's enum values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A status text that the platform does not know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {kind} {text:?}")]
pub struct UnknownStatus {
    kind: &'static str,
    text: String,
}

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$vdoc:meta])* $variant:ident => $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),*
        }

        impl $name {
            /// Every value, in the order of the platform's enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The text in the database and in messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownStatus;
            fn from_str(text: &str) -> Result<Self, UnknownStatus> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownStatus { kind: $kind, text: text.to_owned() }),
                }
            }
        }
    };
}

text_enum! {
    /// `execution_status_enum`.
    ExecutionStatus, "execution status" {
        /// Wanted, not looked at yet.
        Requested => "requested",
        /// A scheduler is choosing a worker.
        Scheduling => "scheduling",
        /// Given to a worker that has not started it.
        Scheduled => "scheduled",
        /// Owned by a worker.
        Running => "running",
        /// Ended with success.
        Completed => "completed",
        /// Ended without success.
        Failed => "failed",
        /// A cancel is on its way to the worker.
        Canceling => "canceling",
        /// Ended by a cancel.
        Cancelled => "cancelled",
        /// Ended by a time limit (accepted from others; our time-outs end as `failed`, as the platform's do).
        Timeout => "timeout",
        /// Its worker was lost.
        Abandoned => "abandoned",
    }
}

impl ExecutionStatus {
    /// Whether nothing may follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Timeout | Self::Abandoned)
    }

    /// Whether a row may go from `self` to `next`. SQL guards and the in-memory checks both follow this table.
    pub const fn may_become(self, next: Self) -> bool {
        use ExecutionStatus as S;
        match self {
            S::Requested => matches!(next, S::Scheduling | S::Failed | S::Cancelled | S::Abandoned),
            S::Scheduling => matches!(next, S::Requested | S::Scheduled | S::Failed | S::Cancelled | S::Abandoned),
            S::Scheduled => matches!(next, S::Running | S::Failed | S::Cancelled | S::Canceling | S::Abandoned),
            S::Running => {
                matches!(next, S::Canceling | S::Completed | S::Failed | S::Cancelled | S::Timeout | S::Abandoned)
            }
            S::Canceling => matches!(next, S::Completed | S::Failed | S::Cancelled | S::Abandoned),
            S::Completed | S::Failed | S::Cancelled | S::Timeout | S::Abandoned => false,
        }
    }

    /// The capitalised form that the payload of `ExecutionCompleted` carries.
    pub const fn capitalised(self) -> &'static str {
        match self {
            Self::Requested => "Requested",
            Self::Scheduling => "Scheduling",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceling => "Canceling",
            Self::Cancelled => "Cancelled",
            Self::Timeout => "Timeout",
            Self::Abandoned => "Abandoned",
        }
    }
}

text_enum! {
    /// `worker_role_enum`.
    WorkerRole, "worker role" {
        /// Runs actions.
        Action => "action",
        /// Hosts sensors.
        Sensor => "sensor",
    }
}

text_enum! {
    /// `worker_type_enum`.
    WorkerType, "worker type" {
        /// On the same machine.
        Local => "local",
        /// On another machine.
        Remote => "remote",
        /// In a container.
        Container => "container",
    }
}

text_enum! {
    /// `worker_status_enum`; `busy` and `error` are written by nobody here.
    WorkerStatus, "worker status" {
        /// Takes work.
        Active => "active",
        /// Takes none.
        Inactive => "inactive",
        /// Unused by the platform.
        Busy => "busy",
        /// Unused by the agents.
        Error => "error",
    }
}

text_enum! {
    /// `sensor_process_status_enum`.
    SensorProcessStatus, "sensor process status" {
        /// Being started.
        Starting => "starting",
        /// Alive.
        Running => "running",
        /// Not wanted any more.
        Stopped => "stopped",
        /// Cannot be started and will not be retried until something changes.
        Failed => "failed",
        /// Waiting for its next start.
        Backoff => "backoff",
    }
}

text_enum! {
    /// `enforcement_status_enum`.
    EnforcementStatus, "enforcement status" {
        /// Not turned into an execution yet.
        Created => "created",
        /// Its execution exists.
        Processed => "processed",
        /// Its rule was disabled or incomplete.
        Disabled => "disabled",
    }
}

text_enum! {
    /// `pack_environment_status_enum`.
    PackEnvironmentStatus, "pack environment status" {
        /// Not built.
        Pending => "pending",
        /// Claimed by a worker that builds it.
        Installing => "installing",
        /// Usable.
        Ready => "ready",
        /// The last build failed.
        Failed => "failed",
        /// The manifest changed since the build.
        Outdated => "outdated",
    }
}

text_enum! {
    /// `artifact_retention_enum`.
    RetentionPolicy, "retention policy" {
        /// Keep the newest n versions.
        Versions => "versions",
        /// Keep n days.
        Days => "days",
        /// Keep n hours.
        Hours => "hours",
        /// Keep n minutes.
        Minutes => "minutes",
    }
}

text_enum! {
    /// `artifact_type_enum`.
    ArtifactType, "artifact type" {
        /// Any bytes.
        FileBinary => "file_binary",
        /// Rows and columns.
        FileDatatable => "file_datatable",
        /// A picture.
        FileImage => "file_image",
        /// Text.
        FileText => "file_text",
        /// Something else.
        Other => "other",
        /// Entries that say how far something is, in `artifact.data`.
        Progress => "progress",
        /// An address, in `artifact.data`.
        Url => "url",
    }
}

text_enum! {
    /// `artifact_visibility_enum`: who may read it.
    ArtifactVisibility, "artifact visibility" {
        /// Everybody.
        Public => "public",
        /// Its owner, and who was granted it.
        Private => "private",
    }
}

text_enum! {
    /// `owner_type_enum`: whose a key or an artifact is.
    OwnerType, "owner type" {
        /// Everybody's.
        System => "system",
        /// An identity's.
        Identity => "identity",
        /// A pack's.
        Pack => "pack",
        /// An action's.
        Action => "action",
        /// A sensor's.
        Sensor => "sensor",
    }
}

text_enum! {
    /// `action.parameter_delivery`.
    ParameterDelivery, "parameter delivery" {
        /// Written to the child's standard input.
        Stdin => "stdin",
        /// In a file named by `ATTUNE_PARAMETER_FILE`.
        File => "file",
    }
}

text_enum! {
    /// `action.parameter_format`.
    ParameterFormat, "parameter format" {
        /// One compact object on one line.
        Json => "json",
        /// Sorted `key='value'` lines.
        Dotenv => "dotenv",
        /// A mapping.
        Yaml => "yaml",
    }
}

text_enum! {
    /// `action.output_format`.
    OutputFormat, "output format" {
        /// Not parsed.
        Text => "text",
        /// The whole output, else its last line.
        Json => "json",
        /// The whole output.
        Yaml => "yaml",
        /// Every line that parses.
        Jsonl => "jsonl",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back_as_its_status() {
        for status in ExecutionStatus::ALL {
            assert_eq!(status.as_str().parse::<ExecutionStatus>(), Ok(*status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn nothing_follows_a_terminal_status_and_every_other_status_can_end() {
        for from in ExecutionStatus::ALL {
            let reachable = ExecutionStatus::ALL.iter().filter(|to| from.may_become(**to)).count();
            assert_eq!(reachable == 0, from.is_terminal(), "{from}");
            if !from.is_terminal() {
                assert!(from.may_become(ExecutionStatus::Abandoned), "{from} can be given up");
                assert!(from.may_become(ExecutionStatus::Cancelled), "{from} can be cancelled");
            }
        }
    }

    #[test]
    fn an_unknown_text_is_named() {
        let error = "cancelling".parse::<ExecutionStatus>().unwrap_err();
        assert_eq!(error.to_string(), "unknown execution status \"cancelling\"");
    }
}
