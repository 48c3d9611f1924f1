//! `tidegate demo`
use clap::Args;
/// Tour.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {}
pub(super) async fn run(_args: DemoArgs) -> std::process::ExitCode {
    super::fail("to come")
}
