//! What the broker itself has counted: its own metrics say whether calls succeeded, which h2load cannot see.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// A call is counted when it has ended, which its client may learn a moment earlier.
const ASKED_AGAIN: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Calls that have ended, by method and gRPC code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<(String, String), u64>);

/// Why they are not known, or not as they must be.
#[derive(Debug, thiserror::Error)]
pub(super) enum CountsError {
    #[error("asking the broker for its metrics: {0}")]
    Io(#[from] io::Error),
    #[error("the broker counts {count} calls of {method} that ended with {code}")]
    Code { method: String, code: String, count: u64 },
    #[error("the broker counts {counted} calls that ended with {code}, the client {made}")]
    Differ { code: &'static str, counted: u64, made: u64 },
}

impl Counts {
    /// As of now.
    pub(super) async fn ask(http: SocketAddr) -> Result<Counts, CountsError> {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: broker\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(Counts::read(&answer))
    }

    /// As soon as `enough` have ended, or as of a while later.
    pub(super) async fn ask_until(http: SocketAddr, enough: impl Fn(&Counts) -> bool) -> Result<Counts, CountsError> {
        for _ in 0..ASKED_AGAIN {
            let counts = Counts::ask(http).await?;
            if enough(&counts) {
                return Ok(counts);
            }
            sleep(PAUSE).await;
        }
        Counts::ask(http).await
    }

    fn read(text: &str) -> Counts {
        Counts(text.lines().filter_map(count).collect())
    }

    fn since(&self, before: &Counts) -> impl Iterator<Item = (&(String, String), u64)> {
        self.0.iter().map(|(key, count)| (key, count - before.0.get(key).copied().unwrap_or_default()))
    }

    /// How many calls went well since `before`: as many as the client made, at least. None may have failed, except that
    /// `cancelled` of them may have been broken off by a client that had measured long enough.
    pub(super) fn judge(&self, before: &Counts, made: u64, cancelled: u64) -> Result<u64, CountsError> {
        let mut ok = 0;
        for ((method, code), count) in self.since(before) {
            match code.as_str() {
                "OK" => ok += count,
                "CANCELLED" if count <= cancelled => {}
                _ if count == 0 => {}
                _ => return Err(CountsError::Code { method: method.clone(), code: code.clone(), count }),
            }
        }
        if ok < made { Err(CountsError::Differ { code: "OK", counted: ok, made }) } else { Ok(ok) }
    }

    /// How many ended with this code since `before`.
    pub(super) fn of(&self, before: &Counts, code: &str) -> u64 {
        self.since(before).filter(|((_, ended), _)| ended == code).map(|(_, count)| count).sum()
    }
}

/// `tidegate_request_duration_seconds_count{code="OK",method="ExecuteRead"} 14819`
fn count(line: &str) -> Option<((String, String), u64)> {
    let rest = line.strip_prefix("tidegate_request_duration_seconds_count{")?;
    let (labels, count) = rest.rsplit_once("} ")?;
    let label = |name: &str| {
        let value = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""))?;
        value.strip_suffix('"').map(str::to_owned)
    };
    Some(((label("method")?, label("code")?), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Counts, CountsError};

    fn counts(ok: u64, cancelled: u64, failed: u64) -> Counts {
        Counts::read(&format!(
            "HTTP/1.0 200 OK\r\n\r\n# TYPE tidegate_request_duration_seconds histogram\n\
             tidegate_request_duration_seconds_count{{code=\"CANCELLED\",method=\"ExecuteRead\"}} {cancelled}\n\
             tidegate_request_duration_seconds_count{{code=\"UNAVAILABLE\",method=\"ExecuteRead\"}} {failed}\n\
             tidegate_request_duration_seconds_count{{code=\"OK\",method=\"ExecuteRead\"}} {ok}\n"
        ))
    }

    #[test]
    fn only_calls_that_the_client_broke_off_may_fail() {
        let before = counts(10, 1, 5);
        assert_eq!(counts(110, 4, 5).judge(&before, 90, 3).expect("all is well"), 100);
        assert!(matches!(counts(110, 5, 5).judge(&before, 90, 3), Err(CountsError::Code { count: 4, .. })));
        assert!(matches!(counts(110, 1, 6).judge(&before, 90, 3), Err(CountsError::Code { count: 1, .. })));
        assert!(matches!(
            counts(110, 1, 5).judge(&before, 101, 3),
            Err(CountsError::Differ { counted: 100, made: 101, .. })
        ));
        assert_eq!(counts(10, 1, 9).of(&before, "UNAVAILABLE"), 4);
    }
}
