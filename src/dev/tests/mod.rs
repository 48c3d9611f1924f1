//! Tests of the local cluster, on real servers.

mod cluster;
mod proxy;
mod watchdog;

/// What every test here ends with: `?` keeps an error's text.
type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Polls until `is_so`; fails the test after `seconds`.
async fn eventually(seconds: u64, what: &str, is_so: impl AsyncFn() -> bool) {
    let poll = async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let bound = std::time::Duration::from_secs(seconds);
    assert!(tokio::time::timeout(bound, poll).await.is_ok(), "within {seconds} s: {what}");
}
