//! `tidegate.v1.AdminService`: who may call it (`access`), and thin adapters to what the broker tells and takes from
//! operators. What takes more than the broker, reading its configuration anew, is handed in.

mod access;
mod reply;
mod service;
mod watch;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;

use crate::broker::Failure;

pub(super) use access::Access;
pub use access::AdminToken;
pub(super) use service::Service;

/// A reload of the configuration: a line, by key, for each thing that was changed.
type Reload = dyn Fn() -> BoxFuture<'static, Result<Vec<(String, String)>, Failure>> + Send + Sync;

/// The way to reload, for the service: offered once there is one. Clones share it.
#[derive(Clone, Default)]
pub struct ReloadOffer(Arc<OnceLock<Box<Reload>>>);

impl ReloadOffer {
    /// Offers it. A second offer changes nothing.
    pub fn offer(
        &self,
        reload: impl Fn() -> BoxFuture<'static, Result<Vec<(String, String)>, Failure>> + Send + Sync + 'static,
    ) {
        let _ = self.0.set(Box::new(reload));
    }

    fn get(&self) -> Option<&Reload> {
        self.0.get().map(|reload| &**reload)
    }
}

impl fmt::Debug for ReloadOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReloadOffer({})", self.0.get().is_some())
    }
}
