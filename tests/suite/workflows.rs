//! The workflows of GitHub Actions and the Dockerfiles: actionlint (pinned in `tests/workflows/go.mod`) checks that the
//! workflows work, zizmor that they are safe, and hadolint the Dockerfiles (both pinned in
//! `tests/workflows/requirements.txt`).

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::support::go_tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const REQUIREMENTS: &str = include_str!("../workflows/requirements.txt");

/// Two tests must not install into one folder at the same time.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Each workflow, with its file name.
fn workflows() -> Vec<(String, Value)> {
    let entries = fs::read_dir(Path::new(ROOT).join(".github/workflows")).unwrap();
    let workflow = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, serde_yaml::from_str(&text).unwrap())
    };
    entries
        .map(|entry| workflow(entry.unwrap().path()))
        .collect()
}

/// A program of `requirements.txt`: the one that the variable names, or the pinned one, installed once into the cache.
fn pinned(name: &str, variable: &str) -> PathBuf {
    if let Some(program) = env::var_os(variable) {
        return program.into();
    }
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let folder = cache
        .join("tsdp")
        .join(format!("linters-{:016x}", hasher.finish()));
    let program = folder.join("bin").join(name);
    if program.is_file() {
        return program;
    }
    let help = format!("install Python 3 with pip, or set {variable} to the program {name}");
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
        .args(["--only-binary=:all:", "--requirement"])
        .args(["tests/workflows/requirements.txt", "--target"])
        .arg(&folder)
        .current_dir(ROOT)
        .output()
        .unwrap_or_else(|error| panic!("cannot run python3: {error}. To fix it, {help}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        program.is_file(),
        "pip cannot install {name}: {error}\nTo fix it, {help}"
    );
    program
}

fn passes(mut command: Command) {
    let output = command.current_dir(ROOT).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn actionlint_finds_nothing() {
    let mut command = Command::new(go_tool("tests/workflows", "actionlint", "ACTIONLINT"));
    // Whether shellcheck and pyflakes are installed must not change the result.
    command.args(["-shellcheck=", "-pyflakes="]);
    for (name, _) in workflows() {
        command.arg(format!(".github/workflows/{name}"));
    }
    passes(command);
}

#[test]
fn zizmor_finds_nothing() {
    let mut command = Command::new(pinned("zizmor", "ZIZMOR"));
    command.args(["--offline", "--pedantic", ".github/workflows"]);
    passes(command);
}

/// The Dockerfiles: hadolint knows what a build does not refuse.
#[test]
fn hadolint_finds_nothing() {
    let mut command = Command::new(pinned("hadolint", "HADOLINT"));
    command.args(["Dockerfile", ".devcontainer/Dockerfile"]);
    passes(command);
}

#[test]
fn each_action_is_pinned_and_each_job_has_its_permissions_and_a_time_limit() {
    let workflows = workflows();
    assert!(workflows.len() >= 4);
    for (name, workflow) in &workflows {
        assert_eq!(
            workflow["permissions"],
            Value::Object(serde_json::Map::new()),
            "{name}"
        );
        for (job, content) in workflow["jobs"].as_object().unwrap() {
            assert!(content["permissions"].is_object(), "{name}: {job}");
            assert!(content["timeout-minutes"].is_u64(), "{name}: {job}");
            for step in content["steps"].as_array().unwrap() {
                let Some(action) = step["uses"].as_str() else {
                    continue;
                };
                let (_, commit) = action.split_once('@').unwrap();
                let is_hash = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
                assert!(is_hash, "{name}: {job}: {action}");
            }
        }
    }
}

/// CI calls the same recipes as a developer: a script that is gone would fail only there.
#[test]
fn each_script_that_a_workflow_runs_exists() {
    let mut found = 0;
    for (name, workflow) in workflows() {
        let text = workflow.to_string();
        for part in text.split(".ci/").skip(1) {
            let script: String = part
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            let file = Path::new(ROOT).join(".ci").join(&script);
            assert!(file.is_file(), "{name} runs .ci/{script}");
            found += 1;
        }
    }
    assert!(found > 5);
}
