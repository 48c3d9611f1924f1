//! Receipts as people and programs read them: where a call ran, and why there.

use std::time::Duration;

use serde_json::json;
use tidegate_client::{HostRole, Receipt};

/// A receipt in one line, for people.
pub(super) fn receipt_text(receipt: &Receipt) -> String {
    let mut text = format!("host: {} ({}), {}", receipt.host, role_name(receipt), reason_name(receipt));
    if receipt.timeline > 0 {
        text += &format!(", timeline {}", receipt.timeline);
    }
    for (label, lsn) in [("required", &receipt.required_lsn), ("replayed", &receipt.replayed_lsn)] {
        if !lsn.is_empty() {
            text += &format!(", {label} {lsn}");
        }
    }
    if let Some(staleness) = staleness(receipt) {
        text += &format!(", staleness {}", rounded(staleness));
    }
    text
}

/// A receipt for programs.
pub(super) fn receipt_json(receipt: &Receipt) -> serde_json::Value {
    json!({
        "cluster": receipt.cluster,
        "host": receipt.host,
        "role": role_name(receipt),
        "reason": reason_name(receipt),
        "timeline": receipt.timeline,
        "required_lsn": receipt.required_lsn,
        "replayed_lsn": receipt.replayed_lsn,
        "staleness_seconds": staleness(receipt).map(|staleness| staleness.as_secs_f64()),
        "attempts": receipt.attempts,
    })
}

fn staleness(receipt: &Receipt) -> Option<Duration> {
    receipt.staleness.and_then(|staleness| staleness.try_into().ok())
}

fn rounded(staleness: Duration) -> String {
    if staleness < Duration::from_secs(1) {
        format!("{}ms", staleness.as_millis())
    } else {
        format!("{:.1}s", staleness.as_secs_f64())
    }
}

fn role_name(receipt: &Receipt) -> &'static str {
    match receipt.role() {
        HostRole::Primary => "primary",
        HostRole::Replica => "replica",
        HostRole::Unspecified => "role unknown",
    }
}

fn reason_name(receipt: &Receipt) -> &'static str {
    receipt.reason().as_str_name().trim_start_matches("ROUTE_REASON_")
}

#[cfg(test)]
mod tests {
    use tidegate_client::{HostRole, Receipt, RouteReason};

    use super::receipt_text;

    #[test]
    fn a_receipt_says_where_and_why() {
        let receipt = Receipt {
            host: "replica-1".into(),
            role: HostRole::Replica.into(),
            reason: RouteReason::CaughtUp.into(),
            timeline: 2,
            required_lsn: "0/3000028".into(),
            ..Receipt::default()
        };
        assert_eq!(receipt_text(&receipt), "host: replica-1 (replica), CAUGHT_UP, timeline 2, required 0/3000028");
    }
}
