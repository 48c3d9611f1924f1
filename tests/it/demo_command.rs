//! `tidegate demo` shows what it says, and leaves nothing behind.

use crate::check_command::tidegate;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_every_step_and_no_violation() {
    let output = tidegate(&["demo", "--checks", "1000"]).await;
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    let last = text.lines().last().expect("a last line");
    let checks: u64 = last
        .strip_prefix("read-your-writes: ")
        .and_then(|rest| rest.strip_suffix(" checks, 0 violations"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("the last line is {last:?}"));
    assert!(checks >= 1000, "{last}");
    for seen in [
        "(primary), BEHIND",
        "(replica), CAUGHT_UP",
        "(replica), NO_POSITION",
        " reads, 0 failed",
        "(primary), WRITE, timeline 2",
    ] {
        assert!(text.contains(seen), "{seen} is not in {text}");
    }
}
