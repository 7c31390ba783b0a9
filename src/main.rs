//! The program: see `tsdp --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tsdp::cli::main()
}
