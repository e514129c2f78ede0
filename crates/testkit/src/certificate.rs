//! A certificate for servers of tests.

#![expect(clippy::disallowed_methods, reason = "made the way operators do it")]

use std::path::Path;
use std::process::Command;

/// Makes a certificate that vouches for itself and is good for `localhost` alone, and its key. `openssl` is the program, run
/// as whom the key is to belong to.
pub(crate) fn make(mut openssl: Command, certificate: &Path, key: &Path) {
    let made = openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=attune-test"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
