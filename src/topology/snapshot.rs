//! All clusters as of one moment, consistent in itself: what routing reads.

use std::sync::Arc;

use super::nudge::Nudge;
use crate::model::{ClusterId, ClusterView, Histories, WalGeometry};

/// All clusters as of the last event; immutable.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Those that are configured.
    pub clusters: Vec<ClusterView>,
    /// The histories that positions refer to.
    pub histories: Histories,
    /// Those that left, for calls that began there: without hosts.
    pub(super) left: Arc<[ClusterView]>,
    pub(super) watched: Arc<[Watched]>,
    /// Stands for what left so long ago that it was forgotten.
    gone: Arc<ClusterView>,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        let gone = ClusterView::unknown(ClusterId::new(u32::MAX), "".into(), WalGeometry::default(), Vec::new());
        Snapshot {
            clusters: Vec::new(),
            histories: Histories::default(),
            left: Arc::default(),
            watched: Arc::default(),
            gone: Arc::new(gone),
        }
    }
}

/// What the probers of a cluster are told.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    cluster: ClusterId,
    nudge: Arc<Nudge>,
}

impl Watched {
    pub(super) fn new(cluster: ClusterId, nudge: &Arc<Nudge>) -> Watched {
        Watched { cluster, nudge: Arc::clone(nudge) }
    }
}

impl Snapshot {
    /// The cluster's view. One that was taken out of the configuration has no hosts.
    pub fn cluster(&self, cluster: ClusterId) -> &ClusterView {
        let is_it = |view: &&ClusterView| view.id == cluster;
        let at_its_place = self.clusters.get(cluster.index()).filter(is_it);
        let anywhere = || self.clusters.iter().chain(&*self.left).find(is_it);
        at_its_place.or_else(anywhere).unwrap_or(&self.gone)
    }

    /// The clusters whose hosts replay what this one's primary writes: itself, and those that follow it.
    pub fn kin(&self, cluster: ClusterId) -> impl Iterator<Item = &ClusterView> {
        self.clusters.iter().filter(move |view| view.id == cluster || view.follows == Some(cluster))
    }

    pub(super) fn nudge(&self, cluster: ClusterId) -> Option<&Arc<Nudge>> {
        self.watched.iter().find(|watched| watched.cluster == cluster).map(|watched| &watched.nudge)
    }
}
