//! Where a session is settled while its database is being moved: the side that its writes go to. It stays there whichever
//! part in the move a reload gives to that side, and goes on in what took the side's place, unless that side is back.

use std::{fmt, sync::Arc};

use super::{
    database::Database,
    placement::{Placed, Served},
};
use crate::model::{Placement, Site};

/// Where a session was placed last.
#[derive(Clone)]
pub struct Settled {
    placement: Placement,
    /// The side of its writes, which may have left since.
    side: Arc<Database>,
}

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = (&self.side.name, &self.side.cluster_name);
        f.debug_struct("Settled").field("placement", &self.placement).field("side", &side).finish()
    }
}

impl Settled {
    pub(super) fn of(placed: &Placed) -> Settled {
        Settled { placement: placed.placement, side: Arc::clone(placed.primary()) }
    }

    /// Where its calls go now.
    pub(super) fn placement_in(&self, served: &Served) -> Placement {
        if served.at(Site::Own).follows() {
            // A reload may have changed since whether the own side has a primary.
            return Placement { primary: Site::Origin, ..self.placement };
        }
        let site = self.site_in(served).unwrap_or(self.placement.primary);
        Placement { primary: site, replica: site }
    }

    fn site_in(&self, served: &Served) -> Option<Site> {
        let mut side = &self.side;
        loop {
            match served.site_of(side) {
                Some(site) => return Some(site),
                // Ends: only what has left has one, which was served then, and left later if at all.
                None => side = side.successor.get()?,
            }
        }
    }
}

impl Served {
    /// Names to those who are settled on a side that leaves what takes its place: what has its part by now, or what is left
    /// of the move.
    pub(super) fn make_way_for(&self, next: &Served) {
        for side in self.sides().filter(|side| next.site_of(side).is_none()) {
            let site = self.site_of(side).unwrap_or(Site::Origin);
            // A side leaves once.
            let _ = side.successor.set(Arc::clone(next.at(site)));
        }
    }

    /// The part of that database, also when it had left and was made anew.
    fn site_of(&self, side: &Database) -> Option<Site> {
        // The origin first: without a move it is both.
        [Site::Origin, Site::Own].into_iter().find(|site| self.at(*site).leads_to() == side.leads_to())
    }
}
