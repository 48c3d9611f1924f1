//! The `admin` section: who may see and steer the broker.

use super::{Secret, read::Reader};

/// The operator's service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// What its callers show: at least 16 bytes of printable ASCII. None: the service is there for this machine alone, while
    /// `grpc.listen` is.
    pub token: Option<Secret>,
}

/// Reads the section.
pub(super) fn admin(reader: &mut Reader<'_>) -> AdminConfig {
    /// Below this, trying tokens out is cheaper than it should be.
    const TOKEN_BYTES_MIN: usize = 16;
    let token = reader.secret("admin.token", "admin.token_file");
    if let Some(text) = token.as_ref().map(Secret::expose) {
        if text.len() < TOKEN_BYTES_MIN {
            let message = format!("has fewer than {TOKEN_BYTES_MIN} bytes; make one with `openssl rand -base64 32`");
            reader.problems.add("admin.token", message);
        }
        // It travels in a header.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "holds a space, or what is not ASCII; make one with `openssl rand -base64 32`";
            reader.problems.add("admin.token", message);
        }
    }
    AdminConfig { token }
}
