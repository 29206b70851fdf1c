//! Why a stream or a connection ended.

use std::{fmt, io};

/// An error code (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u32);

impl Reason {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// A fault of whoever says so.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More was sent than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// A frame for a stream that was already over.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of a size that it cannot have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// Nothing was done for the stream.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// No longer wanted.
    pub const CANCEL: Self = Self(0x8);
    /// The compression state is lost.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The peer makes more work than it may.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    /// Of a code as it crosses.
    #[must_use]
    pub const fn of(code: u32) -> Self {
        Self(code)
    }

    /// The code as it crosses.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }

    const fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        if (self.0 as usize) < NAMES.len() {
            Some(NAMES[self.0 as usize])
        } else {
            None
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which end of the connection did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This one.
    Us,
    /// The other one.
    Peer,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A stream was reset.
    #[error("{} reset the stream: {reason}{}", by.subject(), detail(why))]
    Reset {
        /// The code that was sent.
        reason: Reason,
        /// Who sent it.
        by: By,
        /// What was wrong, where we found it wrong.
        why: &'static str,
    },
    /// The connection was ended, and every stream with it that had not ended.
    #[error("{} ended the connection: {reason}{}", by.subject(), detail(why))]
    GoAway {
        /// The code that was sent.
        reason: Reason,
        /// Who sent it.
        by: By,
        /// What was wrong, where we found it wrong.
        why: &'static str,
    },
    /// Nothing was done for the stream: the peer is leaving, or takes no more of them.
    #[error("the peer did not take the stream")]
    Unprocessed,
    /// The transport failed.
    #[error("connection: {0}")]
    Io(io::ErrorKind),
}

impl By {
    const fn subject(self) -> &'static str {
        match self {
            Self::Us => "we",
            Self::Peer => "the peer",
        }
    }
}

fn detail(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    }
}

impl Error {
    /// We end the connection, because of the peer.
    pub(crate) const fn connection(reason: Reason, why: &'static str) -> Self {
        Self::GoAway {
            reason,
            by: By::Us,
            why,
        }
    }

    /// We end a stream, because of the peer.
    pub(crate) const fn stream(reason: Reason, why: &'static str) -> Self {
        Self::Reset {
            reason,
            by: By::Us,
            why,
        }
    }

    /// The code that was sent, where one was.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Reset { reason, .. } | Self::GoAway { reason, .. } => Some(*reason),
            Self::Unprocessed | Self::Io(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
