//! The three clocks of this crate's neighbours, converted: certificates count whole seconds since
//! 1970, rustls has `UnixTime`, everybody else `SystemTime`. Reads no clock itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

/// Seconds of 9999-12-31T23:59:59Z, the last moment an X.509 certificate can name.
const LAST_SECOND: u64 = 253_402_300_799;

/// `seconds` since 1970; what lies before is 1970 itself.
pub(crate) fn from_unix_seconds(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// For webpki; what lies before 1970 is 1970 itself.
pub(crate) fn to_unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `now` as rustls hands it to a verifier.
pub(crate) fn from_unix_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// `time` without its fraction of a second, if a certificate can name it.
pub(crate) fn whole_seconds(time: SystemTime) -> Option<SystemTime> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (seconds <= LAST_SECOND).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}
