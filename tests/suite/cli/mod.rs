//! The commands that need no cluster, run as processes.

mod actions;
mod admission;
mod adopt;
mod agreement;
mod apply;
mod codes;
mod connection;
mod copied;
mod devices;
mod diagnostics;
mod export;
mod help;
mod mutations;
mod plan;
mod recorded;
mod report;
mod shell;
mod tailnet;
mod terraform;
mod validate;
mod validate_online;
mod yaml;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs `tsdp` in a folder, without variables of this process that it would read.
fn tsdp(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args(args)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .env_remove("TSDP_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The write fails if the program ends without reading. Its output then says why.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
