//! Long output on a terminal goes through a pager, as with git.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use super::output;

/// Lines that fit on a screen of the usual size: no pager is needed for them.
const SCREEN: usize = 24;

/// Prints data, page by page if it is long and stdout is a terminal. `PAGER` names the program; if it is empty,
/// there is none.
pub(super) fn print(text: &str) -> io::Result<()> {
    let pager = env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let is_long = text.lines().count() > SCREEN;
    if is_long && io::stdout().is_terminal() && !pager.is_empty() && is_shown(&pager, text) {
        return Ok(());
    }
    output::print(text)
}

/// Whether the pager has shown the text. An image without a shell has none, and a machine may lack the program.
fn is_shown(pager: &str, text: &str) -> bool {
    let mut command = Command::new("sh");
    command.arg("-c").arg(pager).stdin(Stdio::piped());
    if env::var_os("LESS").is_none() {
        // Colors, no pager for what fits on the screen, and the text stays there for the question below it.
        command.env("LESS", "FRX");
    }
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    if let Some(mut input) = child.stdin.take() {
        // A reader who has seen enough closes the pager.
        let _ = input.write_all(text.as_bytes());
    }
    // The shell's code for a program that it does not find.
    child.wait().is_ok_and(|status| status.code() != Some(127))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pager_gets_the_whole_text_and_a_missing_one_has_not_shown_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shown");
        let pager = format!("cat > '{}'", file.display());
        let text = "a line\n".repeat(10_000);
        assert!(is_shown(&pager, &text));
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        assert!(is_shown("true", &text), "someone may stop reading");
        assert!(!is_shown("no-such-pager-is-installed", &text));
    }
}
