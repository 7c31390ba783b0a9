//! The command line.

use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "demo")]
pub mod simulate;

#[derive(Parser)]
enum Command {
    #[cfg(feature = "demo")]
    Simulate(simulate::SimulateArgs),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(runtime) = tokio::runtime::Runtime::new() else {
        return ExitCode::FAILURE;
    };
    #[cfg(feature = "demo")]
    {
        let Command::Simulate(args) = Command::parse();
        if let Err(error) = runtime.block_on(simulate::run(args)) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
