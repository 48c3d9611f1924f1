//! A read that tries a lane first. It is awaited in place: no task, no channel. What no lane answers goes on as any other
//! read, with what was decided already.

use std::{sync::Arc, time::Duration};

use super::{
    Left, NotEntered,
    lane::{NoResult, Room, Whole},
};
use crate::{
    admission::Use,
    broker::{
        Broker, Failure, Outcome, ReadHeader, ReadPart, ReadRequest, ReadStream, ReadSummary, Reason, Receipt,
        choose::{Choice, Chooser},
        clean::Deed,
        known::Known,
        placement::{ReadPlan, Side},
        stream::{MESSAGE_SLACK, PartLimits},
        wait::WaitLimit,
    },
    codec::{self, Columns},
    model::{Consistency, HostSet, LARGE_BYTES, Role},
    telemetry::LaneGauges,
};

/// What is decided of a read before it runs on a connection of its own.
#[derive(Default)]
pub(in crate::broker) struct Begun {
    pub(in crate::broker) plan: Option<ReadPlan>,
    /// What the first choice of a host came to.
    pub(in crate::broker) choice: Option<Result<Receipt, Failure>>,
}

/// What became of a read that tried a lane.
enum Tried {
    Answered(ReadPart),
    Failed(Failure),
    Not(Begun),
}

/// Why a read is not on a lane after all.
enum Off {
    Failed(Failure),
    /// It was to be on one.
    Left(Left),
}

impl Broker {
    /// A read's first part, and the rest of them. A failure before it is the call's.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn read_first(self: &Arc<Self>, request: ReadRequest) -> Result<(ReadPart, ReadStream), Failure> {
        let begun = match self.try_lane(&request).await {
            Tried::Answered(part) => return Ok((part, ReadStream::over())),
            Tried::Failed(failure) => return Err(failure),
            Tried::Not(begun) => begun,
        };
        let mut stream = self.read_on(request, begun);
        let first = stream.next().await;
        let nothing = || Err(Failure::new(Reason::Internal, "a result without any message"));
        Ok((first.unwrap_or_else(nothing)?, stream))
    }

    async fn try_lane(self: &Arc<Self>, request: &ReadRequest) -> Tried {
        if self.settings().lanes.connections == 0 || self.settings().pooled || !request.context.settings.is_empty() {
            return Tried::Not(Begun::default());
        }
        let plan = match self.plan_read(&request.context, request.consistency, request.consistency_is_stated) {
            Ok(plan) => plan,
            Err(failure) => return Tried::Failed(failure),
        };
        let not = |plan, choice| Tried::Not(Begun { plan: Some(plan), choice });
        // A statement that is known was inspected when it ran first.
        let Some(known) = self.fit_for_a_lane(request, &plan) else { return not(plan, None) };
        let limit = WaitLimit::until(self, &plan.consistency, request.max_wait, request.deadline);
        let chooser = plan.side.chooser(self, &plan.consistency, plan.by_rule, None);
        let mut receipt = match chooser.choose(HostSet::EMPTY, 1, limit) {
            Ok(Choice::Host(receipt)) if receipt.role == Role::Replica => *receipt,
            Ok(Choice::Host(receipt)) => return not(plan, Some(Ok(*receipt))),
            Ok(Choice::Wait { .. }) => return not(plan, None),
            Err(failure) => return not(plan, Some(Err(failure))),
        };
        // A drain waits for it, as for those that have tasks.
        let _tracked = self.tasks.token();
        match self.on_lane(request, &chooser, &known, &mut receipt).await {
            Ok((columns, Whole { rows, row_count })) => {
                plan.side.database.lane_counts.answered();
                let summary = ReadSummary { row_count, position: plan.side.reach.token(self) };
                Tried::Answered(ReadPart {
                    header: Some(ReadHeader { columns, receipt }),
                    rows,
                    summary: Some(summary),
                })
            }
            Err(Off::Left(why)) => {
                plan.side.database.lane_counts.left(why);
                if matches!(why, Left::Stalled | Left::Lost) {
                    chooser.choose_another_replica(&mut receipt);
                }
                not(plan, Some(Ok(receipt)))
            }
            Err(Off::Failed(mut failure)) => {
                failure.position = plan.side.reach.token(self);
                Tried::Failed(failure.with_receipt(&receipt))
            }
        }
    }

    /// The statement, if it is clean and short, and may run where this read goes.
    fn fit_for_a_lane(self: &Arc<Self>, request: &ReadRequest, plan: &ReadPlan) -> Option<Arc<Known>> {
        let Side { database, .. } = &plan.side;
        // What a CAUSAL read saw is asked for behind it, on its connection.
        if plan.consistency == Consistency::Causal || plan.otherwise.is_some() {
            return None;
        }
        let known = database.judge.find(Deed::Read, &request.statement.sql)?;
        let fresh = self.freshness(database);
        let is_aging = known.for_a_lane(fresh, request.max_message_bytes)?;
        if is_aging {
            self.judge_beside(database, &known);
        }
        // What is late already is not begun.
        (!request.deadline.is_over(fresh.now)).then_some(known)
    }

    async fn on_lane(
        &self,
        request: &ReadRequest,
        chooser: &Chooser<'_>,
        known: &Arc<Known>,
        receipt: &mut Receipt,
    ) -> Result<(Columns, Whole), Off> {
        let database = chooser.database;
        let _turn = self.turn_until(database, &request.context.caller, request.deadline).await.map_err(Off::Failed)?;
        let no_lane = Off::Left(Left::NoLane);
        let Some(pools) = database.hosts.pools(receipt.host_id) else { return Err(no_lane) };
        let _in_flight = pools.begin();
        let wanted = (known, || self.freshness(database));
        let entered = pools.lanes.enter(wanted, &request.context.caller, request.deadline).await;
        let not_entered = |why| match why {
            NotEntered::Late => Off::Failed(Failure::deadline("before a connection was free")),
            NotEntered::Shed(shed) => Off::Failed(pools.shed(Use::Lane, shed)),
        };
        let Some((entered, statement, waited)) = entered.map_err(not_entered)? else { return Err(no_lane) };
        if waited > Duration::ZERO {
            receipt.waited += waited;
            self.metrics.waited("lane", waited);
        }
        let vantage = entered.lane.link.vantage();
        // The verdict that holds now: the one that it came with may be over.
        let proof = known.proof(self.freshness(database));
        let is_clean = proof.is_some_and(|proof| chooser.covers(&proof, vantage, receipt.host_id, receipt.role));
        if !is_clean || !chooser.proves(vantage, receipt) {
            return Err(Off::Left(Left::Unproved));
        }
        let limits = PartLimits::new(self.settings().batch_bytes, request.max_message_bytes);
        // What does not fit is said by the exclusive run.
        let header_bytes = statement.columns.size() + MESSAGE_SLACK;
        let Some(room) = limits.message.checked_sub(header_bytes) else { return Err(Off::Left(Left::Error)) };
        let room = Room { rows: room.min(limits.batch).min(LARGE_BYTES), message: limits.message };
        let misfit = |_| Off::Left(Left::Error);
        let params = codec::encode(&request.statement.params, statement.prepared.params()).map_err(misfit)?;
        let sent = entered.send(known, &statement, params, room, request.deadline);
        let whole = sent.await.map_err(|none| match none {
            NoResult::Late => Off::Failed(Failure::deadline("before the call was done").outcome(Outcome::RolledBack)),
            NoResult::Left(why) => Off::Left(why),
        })?;
        Ok((statement.columns.clone(), whole))
    }

    /// What lanes do, by database.
    pub fn lane_gauges(&self) -> Vec<LaneGauges> {
        let databases = self.databases.load();
        let served = databases.values().map(|served| {
            let mut gauges = served.origin.lane_counts.gauges(&served.origin.name);
            for side in served.sides() {
                side.hosts.each(|pools| {
                    let (lanes, in_flight, waiting) = pools.lanes.figures();
                    gauges.lanes += lanes;
                    gauges.in_flight += in_flight;
                    gauges.waiting += waiting;
                });
            }
            gauges
        });
        served.collect()
    }
}
