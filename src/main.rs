//! The `tidegate` program: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser;
use tidegate::cli::Cli;

// A call makes a hundred small, short-lived allocations, many of them freed by another thread than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
