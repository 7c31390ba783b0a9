use std::process::Command;

use super::*;
use crate::docs::blocks;

const PAGE: &str = include_str!("../../../../docs/apply.md");

/// The lines of a job that call the program, including those that distinguish changes from errors.
fn script(job: &Value) -> String {
    let steps = job["steps"].as_array().into_iter().flatten();
    let steps = steps.map(|step| &step["run"]);
    let lines = job["script"].as_array().into_iter().flatten();
    let lines = steps.chain(lines).filter_map(Value::as_str);
    let ours = lines.filter(|line| {
        line.contains("tsdp plan") || line.contains("tsdp apply") || line.contains("$code")
    });
    ours.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_jobs_of_the_page_apply_the_saved_plan_or_nothing() {
    let jobs = blocks(PAGE, "yaml").into_iter().map(|block| {
        let block: Value = serde_yaml::from_str(&block).unwrap();
        block.get("jobs").cloned().unwrap_or(block)
    });
    for job in jobs {
        let (plan, apply) = (script(&job["plan"]), script(&job["apply"]));
        let tailnet = Tailnet::demo().await;
        let folder = tailnet.folder.path();
        let run = async |script: &str| {
            let path = std::env::var("PATH").unwrap();
            let program = std::path::Path::new(env!("CARGO_BIN_EXE_tsdp"))
                .parent()
                .unwrap();
            let mut shell = tokio::process::Command::new("bash");
            shell
                .args(["-e", "-o", "pipefail", "-c", script])
                .current_dir(folder)
                .env("PATH", format!("{}:{path}", program.display()))
                .env("TAILSCALE_API_KEY", API_KEY)
                .env("TAILSCALE_BASE_URL", tailnet.simulator.url());
            shell.output().await.unwrap().status.success()
        };
        let git = |args: &[&str]| {
            let who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
            let ran = Command::new("git")
                .args(who)
                .args(args)
                .current_dir(folder)
                .output();
            assert!(ran.unwrap().status.success(), "{args:?}");
        };
        let write = |keys: &str| {
            let policy = format!(
                "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {{name: a}}, \
                 spec: {{device: {{hostname: fra-router}}, postureAttributes: {{{keys}}}}}}}"
            );
            fs::write(folder.join("policies/a.yaml"), policy).unwrap();
            git(&["add", "policies"]);
            git(&["commit", "--quiet", "-m", "policies"]);
        };
        git(&["init", "--quiet"]);
        fs::create_dir(folder.join("policies")).unwrap();
        write("");
        write("custom:a: {string: x}, custom:b: {string: z}");
        assert!(run(&plan).await && run(&apply).await, "{plan}\n{apply}");
        write("custom:a: {string: x}");
        assert!(run(&plan).await, "{plan}");
        let drift = json!({"enabledRoutes": []});
        let router = node(&tailnet, "fra-router");
        tailnet.simulator.patch_device(&router, &drift).unwrap();
        tailnet.requests();
        assert!(!run(&apply).await, "the tailnet has moved: {apply}");
        assert_eq!(writes(&tailnet), [""; 0]);
        assert!(run(&plan).await && run(&apply).await, "{plan}\n{apply}");
        let left = device(&tailnet, "fra-router")["attributes"].clone();
        assert_eq!(left, json!({"custom:a": "x"}));
    }
}

#[tokio::test]
async fn the_terminal_session_of_the_page_is_real() {
    let tailnet = Tailnet::demo().await;
    fs::create_dir(tailnet.path("policies")).unwrap();
    let policy = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
                  metadata: {name: fra-router, namespace: network}, \
                  spec: {device: {hostname: fra-router}, tags: [\"tag:router\", \"tag:fra\"], \
                  enabledRoutes: [10.0.0.0/16, \"fd7a:10::/48\"]}}";
    fs::write(tailnet.path("policies/a.yaml"), policy).unwrap();
    let reported = blocks(PAGE, "console").remove(0);
    let (line, reported) = reported.split_once('\n').unwrap();
    assert_eq!(line, "$ tsdp apply -f policies/");
    let (shown, done) = reported.split_once("Type 'yes' to confirm: yes\n").unwrap();
    let mut terminal = Terminal::open(&tailnet, &["apply", "-f", "policies/"]);
    let seen = terminal.until(QUESTION).await.replace('\r', "");
    assert_eq!(seen, shown);
    terminal.type_line("yes").await;
    let (seen, _) = terminal.end().await;
    for line in done.lines() {
        assert!(seen.contains(line), "{line}: {seen}");
    }
}
