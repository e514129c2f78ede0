//! A package as pip installs it, made by hand: building one would need packages from the network.

/// The name of its file.
pub const WHEEL_FILE: &str = "thing-1.0-py3-none-any.whl";

/// A program in Python that writes it to the path in its first argument; its module `thing` has `ANSWER = 42`.
pub const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("thing.py", "ANSWER = 42\n")
    wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("thing-1.0.dist-info/RECORD", "")
"#;
