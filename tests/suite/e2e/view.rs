//! What kubectl prints, without what differs in each run.

/// A table with its columns parted by ` | ` and its ages made one.
pub fn table(text: &str) -> String {
    let rows = text.lines().map(|line| {
        let columns = line
            .split("   ")
            .map(str::trim)
            .filter(|column| !column.is_empty());
        columns
            .map(|column| if is_age(column) { "AGO" } else { column })
            .collect::<Vec<_>>()
            .join(" | ")
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// A description with its times, ids and ages made one.
pub fn description(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return table(line);
        };
        let differs = name.ends_with("Time") || name.ends_with("Timestamp");
        if differs || matches!(name.trim(), "UID" | "Resource Version") {
            return format!("{name}: …");
        }
        if value.contains("   ") && name.contains("   ") {
            table(line)
        } else {
            line.trim_end().to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `7s`, `2m10s`, `3h`.
fn is_age(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h'])
        && text
            .chars()
            .all(|letter| letter.is_ascii_digit() || "smh".contains(letter))
}
