//! Who may call the admin service: those who show its token; without one configured, programs on this machine, while the
//! port is bound to it alone.

use std::fmt;

use sha2::{Digest, Sha256};
use tonic::Request;

use crate::{
    broker::{Failure, Reason},
    grpc::accept::{GrpcWeb, Peer},
};

/// What callers of the admin service show, as its digest. Debug shows nothing of it.
#[derive(Clone, Copy)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Of that text.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether both are the same. Takes as long whatever they are.
    fn is(self, other: Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |differing, (one, other)| differing | (one ^ other)) == 0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Who is let in.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) enum Access {
    /// Nobody: the service is not there.
    Off,
    /// Programs on this machine.
    ThisMachine,
    /// Who shows this.
    Token(AdminToken),
}

impl Access {
    /// By the configured token, and whether the port is bound to a loopback address.
    pub(in crate::grpc) fn new(token: Option<AdminToken>, is_loopback: bool) -> Access {
        match token {
            Some(token) => Access::Token(token),
            None if is_loopback => Access::ThisMachine,
            None => Access::Off,
        }
    }

    /// Whether the service is there at all.
    pub(in crate::grpc) fn is_on(self) -> bool {
        !matches!(self, Access::Off)
    }

    /// Lets a caller in, or says why not.
    pub(super) fn admit(self, caller: &Caller) -> Result<(), Failure> {
        match self {
            Access::Off => {
                let message = "AdminService is off: set admin.token, or bind grpc.listen to a loopback address";
                Err(Failure::new(Reason::FieldUnsupported, message))
            }
            Access::Token(token) => match caller.token {
                Some(given) if token.is(given) => Ok(()),
                Some(_) => Err(Failure::field(
                    Reason::AdminTokenInvalid,
                    "authorization",
                    "the token in the metadata `authorization` is not admin.token",
                )),
                None => Err(Failure::field(
                    Reason::AdminTokenInvalid,
                    "authorization",
                    "send admin.token as metadata, `authorization: Bearer TOKEN`",
                )),
            },
            Access::ThisMachine => {
                let refused = |why: &str| {
                    let message = format!("{why}; with admin.token configured, callers that show it are let in");
                    Err(Failure::new(Reason::AdminRefused, message))
                };
                if caller.is_page {
                    // A page from anywhere runs on this machine, in somebody's browser.
                    return refused("without admin.token AdminService takes no calls from browsers or over gRPC-Web");
                }
                if caller.is_forwarded {
                    return refused("without admin.token AdminService takes no calls that came through a proxy");
                }
                match caller.is_here {
                    true => Ok(()),
                    false => refused("without admin.token AdminService takes calls from this machine alone"),
                }
            }
        }
    }
}

/// What is known of who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    token: Option<AdminToken>,
    /// On this machine.
    is_here: bool,
    /// It is, or may be, a page in a browser.
    is_page: bool,
    /// A proxy says that it is not the caller itself.
    is_forwarded: bool,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Caller {
        let metadata = request.metadata();
        let has = |name: &str| metadata.contains_key(name);
        let shown = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = shown.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            // The scheme's case does not matter (RFC 9110, 11.1).
            scheme.eq_ignore_ascii_case("bearer").then(|| AdminToken::new(token.trim()))
        });
        let peer = request.extensions().get::<Peer>();
        Caller {
            token,
            is_here: peer.is_some_and(|peer| peer.0.to_canonical().is_loopback()),
            is_page: request.extensions().get::<GrpcWeb>().is_some() || has("origin") || has("sec-fetch-site"),
            is_forwarded: has("forwarded") || has("x-forwarded-for") || has("via"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer(peer.parse().expect("an address")));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().expect("a value"));
        }
        request
    }

    fn judge(access: Access, request: &Request<()>) -> Option<Reason> {
        access.admit(&Caller::of(request)).err().map(|failure| failure.reason)
    }

    #[test]
    fn with_a_token_it_alone_counts() {
        let access = Access::new(Some(AdminToken::new("correct horse")), true);
        let with = |value: &str| request("192.0.2.1", &[("authorization", value), ("origin", "http://a")]);
        for good in ["Bearer correct horse", "bearer correct horse"] {
            assert_eq!(judge(access, &with(good)), None, "{good}");
        }
        for bad in ["Bearer correct", "Bearer correct horse2", "Basic correct horse", "correct horse", "Bearer", ""] {
            assert_eq!(judge(access, &with(bad)), Some(Reason::AdminTokenInvalid), "{bad}");
        }
        assert_eq!(judge(access, &request("127.0.0.1", &[])), Some(Reason::AdminTokenInvalid));
        assert!(!format!("{access:?}").contains("correct"));
    }

    #[test]
    fn without_one_programs_on_this_machine_are_let_in_and_pages_are_not() {
        let access = Access::new(None, true);
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(access, &request(here, &[])), None, "{here}");
        }
        assert_eq!(judge(access, &request("192.0.2.1", &[])), Some(Reason::AdminRefused));
        assert_eq!(judge(access, &Request::new(())), Some(Reason::AdminRefused), "nobody knows from where");
        for header in ["origin", "sec-fetch-site", "forwarded", "x-forwarded-for", "via"] {
            let refused = judge(access, &request("127.0.0.1", &[(header, "x")]));
            assert_eq!(refused, Some(Reason::AdminRefused), "{header}");
        }
        let mut page = request("127.0.0.1", &[]);
        page.extensions_mut().insert(GrpcWeb);
        assert_eq!(judge(access, &page), Some(Reason::AdminRefused));
        let off = Access::new(None, false);
        assert!(!off.is_on());
        assert_eq!(judge(off, &request("127.0.0.1", &[])), Some(Reason::FieldUnsupported));
    }
}
