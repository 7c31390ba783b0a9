//! Programs for the tests that are pinned as tools of a Go module. `go tool` builds each once and keeps it in the
//! cache of Go.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The programs that are built already. The lock is held during a build: tests run at the same time, and Go does not
/// keep two of them from linking the same program twice.
static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());

/// The program that the environment variable names, or the one that the module in this folder pins, built if need be
/// (some minutes, and it needs a C compiler).
pub fn go_tool(folder: &str, name: &'static str, variable: &str) -> PathBuf {
    if let Some(program) = std::env::var_os(variable) {
        return program.into();
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built
        .entry(name)
        .or_insert_with(|| build(folder, name, variable))
        .clone()
}

fn build(folder: &str, name: &str, variable: &str) -> PathBuf {
    let help = format!(
        "install Go 1.26 or later, with a Go module proxy (see `go env GOPROXY`), or set {variable} to the program {name}"
    );
    let built = Command::new("go")
        .args(["-C", folder, "tool", "-n", name])
        .env("GOWORK", "off")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run go: {error}. To fix it, {help}"));
    let error = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "go cannot build {name} in {folder}: {error}\nTo fix it, {help}"
    );
    String::from_utf8(built.stdout).unwrap().trim().into()
}
