use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

const GO_MOD: &str = include_str!("../../prometheus/go.mod");
const GO_SUM: &str = include_str!("../../prometheus/go.sum");

/// Two tests must not build at the same time.
static BUILDING: Mutex<()> = Mutex::new(());

/// A program of Prometheus: the one that the variable names, or the one that `tests/prometheus/go.mod` pins, built once
/// (some minutes).
///
/// Not by `go tool`, which knows no build tags: without the discovery of thirty clouds, the build takes half the time.
pub fn prometheus_program(name: &str, variable: &str) -> PathBuf {
    if let Some(program) = env::var_os(variable) {
        return program.into();
    }
    let _lock = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    (GO_MOD, GO_SUM).hash(&mut hasher);
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let cache = cache.join("tsdp");
    let folder = cache.join(format!("prometheus-{:016x}", hasher.finish()));
    if !folder.join(name).is_file() {
        build(&cache, &folder, variable);
    }
    folder.join(name)
}

fn build(cache: &Path, folder: &Path, variable: &str) {
    fs::create_dir_all(cache).unwrap();
    // In the cache, as a rename works only within one file system.
    let work = tempfile::tempdir_in(cache).unwrap();
    let programs = work.path().join("bin");
    let help = format!(
        "install Go 1.26 or later, with a Go module proxy (see `go env GOPROXY`), or set {variable} to the program"
    );
    let built = Command::new("go")
        .args([
            "-C",
            "tests/prometheus",
            "build",
            "-trimpath",
            "-buildvcs=false",
        ])
        .args(["-mod=readonly", "-tags=remove_all_sd", "-ldflags=-s -w"])
        // With a slash at its end, as it is a folder.
        .args(["-o", &format!("{}/", programs.display())])
        .args(
            ["promtool", "prometheus"]
                .map(|it| format!("github.com/prometheus/prometheus/cmd/{it}")),
        )
        .env("GOWORK", "off")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run go: {error}. To fix it, {help}"));
    let error = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "go cannot build Prometheus: {error}\nTo fix it, {help}"
    );
    // Another process may have been faster.
    if fs::rename(&programs, folder).is_err() {
        assert!(folder.is_dir(), "{} cannot be made", folder.display());
    }
}
