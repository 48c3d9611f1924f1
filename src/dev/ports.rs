//! Free TCP ports on 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};

use super::error::DevError;

const TRIES: usize = 200;

/// A port that nobody listens on right now. Somebody else may take it before the caller does: callers try again.
///
/// Ports below the range that systems hand out by themselves (32768 and up on Linux, 49152 and up elsewhere): a server
/// that was killed must find its port free later, and not as the local end of somebody's outgoing connection.
pub(super) fn free() -> Result<u16, DevError> {
    (0..TRIES)
        .map(|_| rand::random_range(20_000..32_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or(DevError::NoPort { tries: TRIES })
}
