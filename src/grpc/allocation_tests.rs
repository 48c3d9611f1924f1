//! How many pieces of memory a point read takes on its way through the adapters: exact, so that one more is noticed.

use std::time::Duration;

use allocation_counter::measure;
use prost::Message;
use tonic::metadata::MetadataMap;

use super::{reply, request};
use crate::{
    broker::{ReadHeader, ReadPart, ReadSummary, Receipt},
    clock,
    codec::Columns,
    model::{Deadline, HostId, Lsn, Role, RouteReason, Timeline},
    proto,
    telemetry::{Metrics, RouteLabels, parent_from},
};

const SQL: &str = "SELECT abalance, bid, filler FROM accounts WHERE aid = $1";

#[test]
fn a_point_reads_request_takes_what_it_keeps() {
    let id = proto::Value { kind: Some(proto::value::Kind::Int64Value(4242)) };
    let sent = proto::ExecuteReadRequest {
        context: Some(proto::CallContext { session_id: "session-0001".into(), ..Default::default() }),
        statement: Some(proto::Statement { sql: SQL.into(), params: vec![id] }),
        options: None,
    };
    let sent = sent.encode_to_vec();
    let metadata = MetadataMap::new();
    let deadline = Deadline::after(clock::now(), Duration::from_secs(1));
    let counted = measure(|| {
        let _ = parent_from(metadata.as_ref());
        let message = proto::ExecuteReadRequest::decode(sent.as_slice()).unwrap();
        let typed = request::read(message, &metadata, deadline, 4 << 20).unwrap();
        assert_eq!(typed.statement.sql, SQL);
    });
    // The session id, the text, the list of parameters.
    assert_eq!(counted.count_total, 3, "{counted:?}");
}

#[test]
fn a_point_reads_answer_is_encoded_once() {
    let receipt = Receipt {
        cluster: "main".into(),
        host: "replica1:5432".into(),
        host_id: HostId::new(1),
        role: Role::Replica,
        reason: RouteReason::CaughtUp,
        timeline: Timeline::new(1),
        required: Some(Lsn::new(0x16_B374_D848)),
        replayed: Some(Lsn::new(0x16_B374_D848)),
        staleness: Some(Duration::from_millis(3)),
        waited: Duration::ZERO,
        attempts: 1,
        elsewhere: None,
    };
    let columns = [proto::Column { name: "abalance".into(), type_name: "int4".into(), ..Default::default() }];
    let columns = Columns::from(columns.as_slice());
    let header = Some(ReadHeader { columns, receipt });
    let summary = Some(ReadSummary { row_count: 1, position: String::new() });
    let part = ReadPart { header, rows: None, summary };
    let mut out = Vec::with_capacity(512);
    let counted = measure(|| reply::read_part(part).encode(&mut out).unwrap());
    // Two positions as text.
    assert_eq!(counted.count_total, 2, "{counted:?}");
}

#[test]
fn what_each_call_counts_takes_nothing() {
    let metrics = Metrics::new();
    let route = RouteLabels { database: "app", cluster: "main", host: "a:1", role: "replica", reason: "CAUGHT_UP" };
    let count = || {
        metrics.route(&route);
        metrics.waited("connection", Duration::from_micros(20));
        metrics.request("ExecuteRead", "OK", Duration::from_micros(300));
        drop(metrics.stream_active());
    };
    // The first of its labels makes the place that all count in.
    count();
    let counted = measure(count);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
