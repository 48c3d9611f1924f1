//! Owns the account of what would become of a call: which rule it meets, which side of a move it is on, and why. What
//! only positions and hosts decide at the time is said to be so.

use super::{Asked, Draw, Placement, RolloutState, RouteReason, Rule, Rules, Site, place};

/// A database that is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move<'a> {
    /// The cluster where it is.
    pub origin: &'a str,
    /// The cluster of its own.
    pub own: &'a str,
    /// How far it is.
    pub state: RolloutState,
}

/// What would become of a call.
#[derive(Debug, Clone)]
pub struct Explanation<'a> {
    /// The rule that it meets, if it is a read.
    pub rule: Option<&'a Rule>,
    /// The session's draw by the rule, if the rule lets only a share of reads go to replicas.
    pub rule_draw: Option<Draw>,
    /// Where it goes, if its database is being moved.
    pub placement: Option<Explained>,
    /// The cluster whose primary it goes to, if it goes to a primary.
    pub primary_cluster: &'a str,
    /// The cluster whose replicas it may go to; `None`: it goes to the primary for certain.
    pub replica_cluster: Option<&'a str>,
    /// The reason that its receipt will have, where it is certain: the rest depends on positions and hosts.
    pub reason: Option<RouteReason>,
    /// In what way the consistency decides.
    pub read: Option<Asked<'a>>,
}

/// How a call was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// The session's draw; `None`: the call has no session.
    pub draw: Option<Draw>,
    /// Where it goes.
    pub placement: Placement,
}

/// Where a call goes by the state of its database's move.
#[must_use]
pub fn place_call(state: RolloutState, database: &str, session_id: &str) -> Explained {
    let draw = (!session_id.is_empty()).then(|| Draw::of(database, session_id));
    let drawn = draw.is_some_and(|draw| state.percentage.takes_in(draw));
    Explained { draw, placement: place(state, draw.is_some(), drawn) }
}

/// Accounts for a call on `cluster`, where its database is: a read as `asked`, or a write.
#[must_use]
pub fn explain<'a>(
    rules: &'a Rules,
    cluster: &'a str,
    moving: Option<&Move<'a>>,
    asked: Asked<'a>,
    is_write: bool,
) -> Explanation<'a> {
    let placement = moving.map(|moving| place_call(moving.state, asked.database, asked.session_id));
    let cluster_of = |site: fn(&Placement) -> Site| match (placement, moving) {
        (Some(placed), Some(moving)) if site(&placed.placement) == Site::Own => moving.own,
        _ => cluster,
    };
    let primary_cluster = cluster_of(|placement| placement.primary);
    if is_write {
        return Explanation {
            rule: None,
            rule_draw: None,
            placement,
            primary_cluster,
            replica_cluster: None,
            reason: Some(RouteReason::Write),
            read: None,
        };
    }
    // Without a session chance decides: one draw that the share takes in only if it is all, and one only if it is none.
    let ruled = rules.judge(&asked, || u64::MAX);
    let always_kept = rules.judge(&asked, || 0).primary_only;
    let has_session = !asked.session_id.is_empty();
    let strong = ruled.consistency == super::Consistency::Strong;
    let kept = ruled.primary_only && always_kept;
    Explanation {
        rule: ruled.rule,
        rule_draw: ruled.rule.filter(|rule| has_session && rule.replicas.is_some()).map(|it| it.draw(asked.session_id)),
        placement,
        primary_cluster,
        replica_cluster: (!kept && !strong).then(|| cluster_of(|placement| placement.replica)),
        reason: match (strong, kept) {
            (true, _) => Some(RouteReason::Strong),
            (_, true) => Some(RouteReason::Rule),
            _ => None,
        },
        read: Some(Asked { consistency: ruled.consistency, ..asked }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Consistency, Glob, Percentage};

    fn asked(session_id: &str) -> Asked<'_> {
        Asked { database: "ci", operation: "GET /", session_id, consistency: Consistency::Session, is_stated: false }
    }

    fn rules(share: u16) -> Rules {
        let (glob, replicas) = (Glob::new("GET *"), Percentage::from_hundredths(share));
        let text = "GET *";
        Rules::new(vec![Rule {
            name: "get".into(),
            operation: text.into(),
            glob,
            database: None,
            replicas,
            consistency: None,
        }])
    }

    fn moving(percentage: Percentage, reuse_primary: bool) -> Move<'static> {
        let state = RolloutState { use_own: None, reuse_primary, percentage };
        Move { origin: "main", own: "ci", state }
    }

    #[test]
    fn what_is_certain_is_said_and_the_rest_left_open() {
        let none = Rules::default();
        let plain = explain(&none, "main", None, asked(""), false);
        assert_eq!((plain.reason, plain.replica_cluster, plain.placement), (None, Some("main"), None));
        let write = explain(&none, "main", Some(&moving(Percentage::ALL, false)), asked("u7"), true);
        assert_eq!(
            (write.reason, write.primary_cluster, write.replica_cluster),
            (Some(RouteReason::Write), "ci", None)
        );
        let reused = explain(&none, "main", Some(&moving(Percentage::ALL, true)), asked("u7"), false);
        assert_eq!((reused.primary_cluster, reused.replica_cluster), ("main", Some("ci")));
        let nobody = explain(&none, "main", Some(&moving(Percentage::ALL, false)), asked(""), true);
        assert_eq!((nobody.primary_cluster, nobody.placement.unwrap().draw), ("main", None));
        for (share, session, reason) in [
            (0, "", Some(RouteReason::Rule)),
            (5000, "", None),
            (10_000, "", None),
            (0, "u7", Some(RouteReason::Rule)),
            (10_000, "u7", None),
        ] {
            let rules = rules(share);
            let explained = explain(&rules, "main", None, asked(session), false);
            assert_eq!((explained.reason, explained.rule.is_some()), (reason, true), "{share} {session}");
            assert_eq!(explained.rule_draw.is_some(), !session.is_empty());
        }
    }
}
