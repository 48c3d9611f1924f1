//! A reload that a fault of the broker ends half-way: it is reported, undone, and may be tried again.

use std::time::Duration;

use tidegate::app::ReloadRefused;

use crate::{
    asking::primary_alone,
    harness::{Bed, create_counters, read_counter, set_counter, within},
    reload::apply,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_a_fault_ends_is_reported_and_undone() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    create_counters(&bed).await;
    let (app, client) = (bed.app(), bed.client().await);
    let max_lag = bed.config.consistency.max_lag;
    let mut right = bed.config.clone();
    right.consistency.max_lag = max_lag + Duration::from_secs(1);
    let mut wrong = right.clone();
    // Validation would refuse it; the pools that are made for it panic.
    wrong.pool.idle_timeout = Duration::ZERO;
    // Not taken over, it is no less to be done the second time.
    for n in 1..=2 {
        let failed = within("it ends", app.apply(wrong.clone())).await.expect_err("it could not be taken over");
        assert!(matches!(failed, ReloadRefused::Failed { undone: true }), "{failed}");
        assert!(failed.to_string().contains("goes on with the configuration that it had"), "{failed}");
        let effective = app.control().effective().await;
        assert_eq!(effective.pool.idle_timeout, bed.config.pool.idle_timeout);
        assert_eq!((effective.consistency.max_lag, app.broker().settings().max_lag), (max_lag, max_lag));
        set_counter(&client, n).await;
        assert_eq!(read_counter(&client).await.0, n);
    }
    assert_eq!(apply(app, &right).await.len(), 1);
    assert_eq!(app.broker().settings().max_lag, right.consistency.max_lag);
    assert_eq!(read_counter(&client).await.0, 2);
}
