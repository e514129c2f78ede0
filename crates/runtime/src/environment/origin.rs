//! What an image has that environments depend on.

use std::fs;

use super::manifest::sha256_hex;
use crate::image::Image;
use crate::plan::Chosen;

/// Digits of a tag: enough for the few kinds of images that share a folder.
const TAG_DIGITS: usize = 8;

/// A name for images whose environments can be shared: they have the same interpreter at the same path, for the same libc
/// and machine.
pub(super) fn tag(chosen: &Chosen) -> String {
    let interpreter = chosen.interpreter.as_deref();
    // Behind its links, a name without a version tells the version: python3 leads to python3.12.
    let real = interpreter.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    let image = real.as_deref().map_or(Image::Unknown, Image::of);
    let architecture = image.architecture().unwrap_or(std::env::consts::ARCH);
    let text = format!("{real:?} {} {architecture}", image.libc().as_str());
    sha256_hex(text.as_bytes())[..TAG_DIGITS].to_owned()
}
