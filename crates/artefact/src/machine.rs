//! The architectures there is a binary for.

use std::fmt;
use std::str::FromStr;

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// Every one, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one that this program was built for; none for another, which nothing is offered for.
    pub fn own() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }

    /// Its name in file names and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `e_machine` of the ELF specification.
    pub(crate) fn from_elf(number: u16) -> Option<Self> {
        match number {
            62 => Some(Self::X86_64),
            183 => Some(Self::Aarch64),
            _ => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of x86_64, aarch64, arm64")]
pub struct UnknownMachine(pub String);

impl FromStr for Machine {
    type Err = UnknownMachine;

    /// `arm64` is what Docker and Kubernetes call aarch64. Their `amd64` is not in the platform's list, and the hub keeps
    /// to that list; callers that want to be generous translate it themselves.
    fn from_str(name: &str) -> Result<Self, UnknownMachine> {
        match name {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            other => Err(UnknownMachine(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_platform() {
        for machine in Machine::ALL {
            assert_eq!(machine.as_str().parse(), Ok(machine));
        }
        assert_eq!("arm64".parse(), Ok(Machine::Aarch64));
        for other in ["", "X86_64", "amd64", "i686", "../x86_64", "x86_64 "] {
            assert!(other.parse::<Machine>().is_err(), "{other:?}");
        }
    }
}
