//! Questions on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Asks on stderr, so that stdout stays data. Only the whole `word` means consent. Returns `None` if
/// standard input is not a terminal.
pub(super) fn agrees(question: &str, word: &str) -> io::Result<Option<bool>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    // The question has no line break, so without the flush it would appear after its answer.
    let mut terminal = io::stderr();
    write!(terminal, "{question} Type '{word}' to confirm: ")?;
    terminal.flush()?;
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer)?;
    if read == 0 {
        // Ctrl-D does not end the line.
        writeln!(terminal)?;
    }
    // Neither `y` nor an empty line: the changes of many devices deserve more than a reflex.
    Ok(Some(answer.trim() == word))
}
