//! The program `tsdp`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tsdp::cli::main()
}
