//! A real terminal for a command: a pseudo-terminal of util-linux's `script`, which every Debian has.

/// A shell command that runs `line` on a terminal with this many columns, where somebody types `typed`. It
/// ends as `line` does. It prints the screen, with `\r\n` line ends.
pub fn on_terminal(line: &str, columns: u16, typed: &str) -> String {
    // Without an echo, which would show the typed text at a random place of the output.
    let line = format!("stty cols {columns} rows 40; {line}");
    format!(
        "printf '%s' {} | script --quiet --return --echo never --command {} /dev/null",
        quoted(typed),
        quoted(&line)
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
