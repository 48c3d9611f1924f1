//! What a name server says of one host.

use std::{fmt, net::IpAddr, time::Duration};

/// A host as discovery knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Of an SRV record: hosts of the least number are used while one of them will do. 0 for addresses.
    pub priority: u16,
    /// The SRV record's target without its final dot; for addresses, the name that was looked up. Certificates are held
    /// against it.
    pub target: String,
    /// Where it is.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Of an SRV record: its share among those of its priority. `None` for addresses.
    pub weight: Option<u16>,
}

impl Endpoint {
    /// What the host is called: `target:port` of an SRV record, `address:port` of an address.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.weight, self.address) {
            (Some(_), _) => format!("{}:{}", self.target, self.port),
            (None, IpAddr::V4(address)) => format!("{address}:{}", self.port),
            (None, IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.weight {
            Some(weight) => {
                write!(f, "{} ({}, priority {}, weight {weight})", self.name(), self.address, self.priority)
            }
            None => f.write_str(&self.name()),
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In a stable order, each once.
    pub endpoints: Vec<Endpoint>,
    /// The least TTL of the records that it came from.
    pub valid_for: Duration,
}
