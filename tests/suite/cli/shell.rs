use super::tailnet::{Ran, Tailnet, program};

const COMMANDS: [&str; 14] = [
    "apply",
    "approve",
    "controller",
    "crds",
    "devices",
    "export",
    "plan",
    "report",
    "completions",
    "man",
    "demo",
    "simulate",
    "status",
    "validate",
];

async fn tsdp(args: &[&str]) -> Ran {
    program().args(args).output().await.unwrap().into()
}

#[tokio::test]
async fn each_help_has_examples_and_no_flag_takes_a_secret() {
    for command in COMMANDS {
        let help = tsdp(&[command, "--help"]).await.ok();
        assert!(help.contains("Examples:\n  tsdp "), "{help}");
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"));
        // The simulator's secrets are made up and give no access.
        let flags = flags.filter(|_| command != "simulate");
        for flag in flags {
            for secret in ["key", "secret", "token", "password"] {
                let allowed = flag.starts_with("--filename");
                assert!(allowed || !flag.contains(secret), "{command} {flag}");
            }
        }
    }
}

#[tokio::test]
async fn completions_and_man_pages_cover_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = tsdp(&["completions", shell]).await.ok();
        for word in COMMANDS.iter().chain(&["from-cluster"]) {
            assert!(script.contains(word), "{shell} knows no {word}");
        }
    }
    let page = tsdp(&["man"]).await.ok();
    assert!(
        page.contains(".TH tsdp 1") && page.contains("export"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    tsdp(&["man", "--out", folder.path().to_str().unwrap()])
        .await
        .ok();
    for command in COMMANDS {
        let path = folder.path().join(format!("tsdp-{command}.1"));
        assert!(path.exists(), "no page {}", path.display());
    }
}

/// Lines of a terminal with 80 columns.
const SCREEN: usize = 40;

#[tokio::test]
async fn the_short_help_of_each_command_fits_a_screen() {
    let tailnet = Tailnet::demo().await;
    for command in [""].iter().chain(&COMMANDS) {
        let line = format!("NO_COLOR=1 tsdp {command} -h");
        let help = tailnet.on_terminal(&line, 80, "").await.with_code(0);
        let lines: Vec<_> = help.lines().collect();
        assert!(lines.len() <= SCREEN, "{} lines:\n{help}", lines.len());
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{help}"
        );
        assert!(help.contains("Usage: tsdp"), "{help}");
    }
}

#[tokio::test]
async fn without_arguments_the_program_prints_its_help() {
    let ran = tsdp(&[]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, tsdp(&["-h"]).await.out);
}

#[tokio::test]
async fn a_command_line_error_is_reported_on_stderr_with_code_1() {
    for args in [
        &["no-such-command"][..],
        &["plan", "-o", "xml"],
        &["export", "--force"],
    ] {
        let ran = tsdp(args).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{args:?}");
        assert!(ran.err.starts_with("error: "), "{}", ran.err);
    }
}
