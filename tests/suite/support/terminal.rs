//! A real terminal for a command: a pseudo-terminal of util-linux's `script`, which every Debian has.

/// A line of shell that runs `line` on a terminal of so many columns, where somebody types `typed`.
/// Ends as `line` does; what was on the screen comes out, with `\r\n` at the ends of lines.
pub fn on_terminal(line: &str, columns: u16, typed: &str) -> String {
    // Without an echo: it would show what is typed wherever the command has come to by then.
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
