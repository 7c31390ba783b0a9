//! Questions on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Asks on stderr, so that stdout stays data, and takes only the whole `word` for consent. `None`
/// where nobody is there to answer.
pub(super) fn agrees(question: &str, word: &str) -> io::Result<Option<bool>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let mut terminal = io::stderr();
    write!(terminal, "{question} Only '{word}' is taken: ")?;
    terminal.flush()?;
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer)?;
    if read == 0 {
        // Ctrl-D leaves the line open.
        writeln!(terminal)?;
    }
    Ok(Some(answer.trim() == word))
}
