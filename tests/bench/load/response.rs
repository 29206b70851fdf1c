//! The least of an HTTP/1.1 parser: status and length of an answer. What the
//! backend cannot have sent (chunks, say) is an error, not a case.

/// What matters of the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its status code.
    pub(crate) status: u16,
    /// The length of its body in bytes.
    pub(crate) length: usize,
    /// Where its body begins.
    pub(crate) end: usize,
}

/// Where the head in `bytes` ends, if it is whole.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The head at the beginning of `bytes`, if it is whole.
///
/// # Errors
/// When it is not what the backend answers.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = end_of_head(bytes) else {
        return Ok(None);
    };
    let whole = &bytes[..end];
    let status = whole
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| number(rest.get(..3)?))
        .and_then(|code| u16::try_from(code).ok());
    let length = whole.split(|byte| *byte == b'\n').find_map(content_length);
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some(Head {
            status,
            length,
            end,
        })),
        _ => Err(format!(
            "an answer that is not understood: {:?}",
            String::from_utf8_lossy(whole)
        )),
    }
}

fn content_length(line: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME)
        .then(|| number(value.trim_ascii()))
        .flatten()
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
