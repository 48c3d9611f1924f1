//! Who is the primary, as far as a caller can tell: what one that failed there, or found none, waits to see change.

use super::{ClusterView, Decision, HostSet, Rejection, Timeline, route_write};

/// Where writes go, and which server on which timeline that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primacy {
    decision: Decision,
    timeline: Option<Timeline>,
    /// Of the primary: its postmaster's start, see [`super::HostView::incarnation`].
    incarnation: u64,
}

impl Primacy {
    /// As this view has it.
    #[must_use]
    pub fn of(view: &ClusterView) -> Self {
        Self {
            decision: route_write(view, HostSet::EMPTY),
            timeline: view.timeline,
            incarnation: view.primary_host().map_or(0, |host| host.incarnation),
        }
    }

    /// Why there is nowhere to write to; None: there is.
    #[must_use]
    pub const fn rejection(&self) -> Option<Rejection> {
        match self.decision {
            Decision::Reject(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Whether one may be found without anybody's help.
    #[must_use]
    pub const fn may_come(&self) -> bool {
        matches!(self.rejection(), Some(Rejection::NoHostsAvailable | Rejection::NoPrimaryAvailable))
    }

    /// Whether a caller that could not use `seen` has reason to try now: there is another primary, or a better reason
    /// to fail than that there is none.
    #[must_use]
    pub fn is_worth_a_try_after(&self, seen: &Self) -> bool {
        !self.may_come() && self != seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostHealth, HostId, test_support::*};

    #[test]
    fn another_primary_is_worth_a_try_and_none_is_not() {
        let histories = histories(&[1, 100]);
        let replicas = vec![replica(1, histories.current(CLUSTER).unwrap(), 150, 0)];
        let view = view(&histories, 150, replicas);
        let first = Primacy::of(&view);
        assert_eq!((first.rejection(), first.may_come()), (None, false));
        assert!(!first.is_worth_a_try_after(&first), "the same one has just failed");

        let mut none = view.clone();
        (none.primary, none.hosts[0].health) = (None, HostHealth::Down);
        let nobody = Primacy::of(&none);
        assert_eq!(nobody.rejection(), Some(Rejection::NoPrimaryAvailable));
        assert!(nobody.may_come() && !nobody.is_worth_a_try_after(&first));
        none.hosts[1].health = HostHealth::Down;
        assert!(Primacy::of(&none).may_come(), "no host at all is no worse");
        assert!(first.is_worth_a_try_after(&nobody), "it is back");

        let mut promoted = view.clone();
        promoted.primary = Some(HostId::new(1));
        assert!(Primacy::of(&promoted).is_worth_a_try_after(&first));
        let mut restarted = view.clone();
        restarted.hosts[0].incarnation += 1;
        assert!(Primacy::of(&restarted).is_worth_a_try_after(&first));
        let mut branched = view;
        branched.timeline = Some(timeline(3));
        assert!(Primacy::of(&branched).is_worth_a_try_after(&first));
    }
}
