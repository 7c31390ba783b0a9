//! The output of kubectl without its variable parts.

/// A table or description with its columns two spaces apart, one placeholder for ages, and no times or ids.
pub fn steady(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn line(line: &str) -> String {
    let content = line.trim_start();
    let indent = &line[..line.len() - content.len()];
    let differs = |name: &str| {
        name.ends_with("Time")
            || name.ends_with("Timestamp")
            || name == "UID"
            || name == "Resource Version"
    };
    if let Some((name, _)) = content.split_once(':')
        && differs(name)
    {
        return format!("{indent}{name}: …");
    }
    let columns = content
        .split("  ")
        .map(str::trim)
        .filter(|column| !column.is_empty());
    let columns: Vec<_> = columns
        .map(|column| if is_age(column) { "AGO" } else { column })
        .collect();
    format!("{indent}{}", columns.join("  "))
}

/// `7s`, `2m10s`, `3h`.
fn is_age(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h'])
        && text
            .chars()
            .all(|letter| letter.is_ascii_digit() || "smh".contains(letter))
}
