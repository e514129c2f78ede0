//! Bodies of the type `multipart/form-data`, read as a whole: they are small, see [`LARGEST_BODY`].
//!
//! [`LARGEST_BODY`]: super::extract::LARGEST_BODY

use std::str;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};

use super::Api;
use super::error::ApiError;
use super::extract::read_body;

/// More are not asked for by any request.
const MOST_PARTS: usize = 64;

/// One field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Of the field.
    name: String,
    /// Its own `Content-Type`.
    pub(super) content_type: Option<String>,
    /// What it holds.
    pub(super) content: Bytes,
}

/// The fields of a form, in the order of the body.
#[derive(Debug)]
pub(super) struct Form(Vec<Part>);

impl Form {
    /// Takes the field out; of several the first one.
    pub(super) fn take(&mut self, name: &str) -> Option<Part> {
        let at = self.0.iter().position(|part| part.name == name)?;
        Some(self.0.remove(at))
    }

    /// Takes a text out. A field without content counts as not given.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(part) = self.take(name) else { return Ok(None) };
        let text = str::from_utf8(&part.content).map_err(|error| ApiError::invalid(&[format!("{name}: {error}")]))?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl FromRequest<Api> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let Some(boundary) = boundary(request.headers()) else {
            let message = "the body must be a form: send the header content-type: multipart/form-data; boundary=…";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        };
        let body = read_body(request, api).await?;
        parts(&body, &boundary).map(Self).ok_or_else(|| ApiError::bad_request("the body is not a valid form"))
    }
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, _) = text.split_once(';')?;
    let right = kind.trim().eq_ignore_ascii_case("multipart/form-data");
    parameter(text, "boundary").filter(|boundary| right && !boundary.is_empty() && boundary.len() <= 70)
}

/// The value of a parameter behind the first `;` of a header.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (key, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => value
                .split_once(';')
                .map_or((value.trim().to_owned(), ""), |(value, rest)| (value.trim().to_owned(), rest)),
        };
        if key.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = behind;
    }
}

/// A text up to its closing quote, and what is behind it.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

/// The parts between the boundaries; none when the body is not of that form.
fn parts(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}");
    // The first boundary has no line before it.
    let opening = &delimiter.as_bytes()[2..];
    let mut at =
        if body.starts_with(opening) { opening.len() } else { find(body, 0, delimiter.as_bytes())? + delimiter.len() };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        let start = at + rest.starts_with(b"\r\n").then_some(2)?;
        // A part without headers has no name either, so there is at least one line before the empty one.
        let headers_end = find(body, start, b"\r\n\r\n")?;
        let content_start = headers_end + 4;
        let end = find(body, content_start, delimiter.as_bytes())?;
        let (name, content_type) = described(str::from_utf8(&body[start..headers_end]).ok()?)?;
        parts.push(Part { name, content_type, content: body.slice(content_start..end) });
        if parts.len() > MOST_PARTS {
            return None;
        }
        at = end + delimiter.len();
    }
}

/// Name and type from the headers of a part.
fn described(headers: &str) -> Option<(String, Option<String>)> {
    let header = |wanted: &str| {
        headers.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let disposition = header("content-disposition")?;
    let name = parameter(&disposition, "name")?;
    Some((name, header("content-type")))
}

fn find(body: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    body[from..].windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Option<Vec<Part>> {
        parts(&Bytes::from(body.to_owned()), "x")
    }

    fn part(name: &str, content_type: Option<&str>, content: &'static [u8]) -> Part {
        Part {
            name: name.to_owned(),
            content_type: content_type.map(str::to_owned),
            content: Bytes::from_static(content),
        }
    }

    #[test]
    fn fields_and_files_are_read_as_clients_write_them() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"scope\"\r\n\r\npack\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a;\\\"b\\\".txt\"\r\n\
                    Content-Type: text/plain\r\n\r\nline\r\n--xx is no end\r\n\r\n\
                    --x\r\nContent-Disposition: form-data; filename=f; name=empty\r\n\r\n\r\n--x--\r\nrest";
        // What only begins like the boundary ends the part too: RFC 2046 forbids it in a content.
        assert_eq!(read(body), None);
        let body = body.replace("--xx is no end", "-- is no end");
        assert_eq!(
            read(&body).unwrap(),
            [
                part("scope", None, b"pack"),
                part("file", Some("text/plain"), b"line\r\n-- is no end\r\n"),
                part("empty", None, b""),
            ]
        );
        assert_eq!(
            read("preamble\r\n--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--").unwrap().len(),
            1
        );
        assert_eq!(read("--x--").unwrap(), []);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for bad in [
            "",
            "--x",
            "--x\r\n",
            "--x\r\n\r\nno headers\r\n--x--",
            "--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"a\r\n\r\nopen quote\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=a\r\n\r\nno end",
            "--y\r\nContent-Disposition: form-data; name=a\r\n\r\nother boundary\r\n--y--",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_boundary_is_a_parameter_of_the_type() {
        let of = |text: &str| boundary(&HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())]));
        assert_eq!(of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"").as_deref(), Some("a b"));
        for bad in ["multipart/form-data", "multipart/form-data; boundary=", "text/plain; boundary=a", "a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(find(&content, 0, b"--boundary").is_none());
            let mut body = b"--boundary\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".to_vec();
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n--boundary--\r\n");
            let found = parts(&body.into(), "boundary").unwrap();
            prop_assert_eq!(&found[0].content[..], &content[..]);
        }

        #[test]
        fn no_body_is_a_panic(body in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'x'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)) {
            let read = parts(&body.into(), "x");
            prop_assert!(read.is_none_or(|parts| parts.len() < 60));
        }
    }
}
