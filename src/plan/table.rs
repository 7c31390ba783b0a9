use comfy_table::{ContentArrangement, Table, presets};

use super::Difference;

/// The differences as a table for people: device, field, what is, what is wished, why, and for
/// whom. Fits the given width; `None` leaves lines as long as they are.
#[must_use]
pub fn table<'a>(
    differences: impl IntoIterator<Item = &'a Difference>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table.set_header(["DEVICE", "SETTING", "NOW", "DECLARED", "WHY"]);
    for difference in differences {
        let why = if let Some(hold) = &difference.hold {
            format!("held: {hold}")
        } else {
            let owners: Vec<_> = difference.owners().map(ToString::to_string).collect();
            format!("{} by {}", difference.why, owners.join(", "))
        };
        table.add_row([
            difference.device.clone(),
            difference.change.field().to_string(),
            difference.change.before(),
            difference.change.after(),
            why,
        ]);
    }
    table
        .to_string()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
}
