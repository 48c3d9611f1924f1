//! `tidegate check`
use clap::Args;
/// Check.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {}
pub(super) async fn run(_args: CheckArgs) -> std::process::ExitCode {
    super::fail("to come")
}
