//! What devices have in common, and how it is written.

use super::*;

/// The table of devices of these users, from whom a tag takes each device.
fn taken_from(users: &[&str]) -> String {
    let numbers = 1..=users.len();
    let differences: Vec<_> = numbers
        .map(|number| {
            difference(
                number,
                &format!("laptop-{number}"),
                tags(&[], &["tag:kiosk"]),
            )
        })
        .collect();
    let changes = differences.iter().zip(users).map(|(difference, user)| {
        let mut device = Device::plain(difference.node.clone());
        device.user = (*user).to_owned();
        let impact = Impact::of(&difference.change, &device, Timestamp::UNIX_EPOCH);
        ChangeView::of(difference, impact)
    });
    let changes: Vec<_> = changes.collect();
    text::table(&groups(&changes), Style::default(), false).join("\n")
}

#[test]
fn a_group_names_the_user_if_all_its_devices_have_the_same_one() {
    for (users, whose) in [
        (
            ["amelie@example.com", "amelie@example.com"],
            "amelie@example.com",
        ),
        (["amelie@example.com", "ben@example.com"], "its user"),
    ] {
        let why = format!(
            "2 devices  tags     +tag:kiosk  (disruptive: takes the device from {whose} for good; declared by \
             network/servers)\n"
        );
        let table = taken_from(&users);
        assert!(table.contains(&why), "{whose}: {table}");
    }
}

#[test]
fn the_titles_stand_above_wider_and_narrower_columns() {
    let long = difference(1, "a-router-with-a-long-name", routes(0, 1));
    let (long, short) = with_view(&[long], Vec::new(), |view| {
        let long = text::render(view, style(80), false);
        (long, taken_from(&["amelie@example.com"]))
    });
    for table in [long, short] {
        let (titles, row) = table.split_once('\n').unwrap();
        let at = |word: &str| titles.find(word).unwrap();
        assert_eq!(at("DEVICES"), 0, "{table}");
        // Each column of the first row begins below its title.
        for (title, before) in [("SETTING", "DEVICES"), ("CHANGE", "SETTING")] {
            assert_eq!(&row[at(title) - 2..at(title)], "  ", "{table}");
            assert_ne!(&row[at(title)..=at(title)], " ", "{table}");
            assert!(at(before) < at(title), "{table}");
        }
    }
}

#[test]
fn json_has_lists_as_arrays_and_other_values_as_strings() {
    let name = Change::Setting {
        before: None,
        after: SettingValue::Name("new".parse().unwrap()),
    };
    let differences = [
        difference(1, "a", tags(&["tag:a", "tag:b"], &["tag:b"])),
        difference(2, "b", routes(1, 0)),
        difference(3, "c", name),
    ];
    let json = with_view(&differences, Vec::new(), |view| {
        serde_json::to_value(view).unwrap()
    });
    let values: Vec<_> = json["changes"].as_array().unwrap().iter().collect();
    let values: Vec<_> = values
        .iter()
        .map(|change| (&change["before"], &change["after"]))
        .collect();
    let (both, one) = (
        serde_json::json!(["tag:a", "tag:b"]),
        serde_json::json!(["tag:b"]),
    );
    let (route, none) = (serde_json::json!(["10.0.0.0/24"]), serde_json::json!([]));
    assert_eq!(values[..2], [(&both, &one), (&route, &none)]);
    assert!(values[2].0.is_string(), "{json}");
    assert_eq!(values[2].1, "new");
}

#[test]
fn groups_without_a_row_in_a_comment_have_a_count_each() {
    let of_key = |key: usize| {
        let change = Change::Attribute {
            key: format!("custom:key{key:03}").parse().unwrap(),
            before: None,
            after: Some(DesiredAttribute {
                value: AttributeValue::Boolean(true),
                expiry: None,
            }),
        };
        (1..=3).map(move |number| Difference {
            owner: PolicyKey::new("network", "p".repeat(200)),
            ..difference(number, &format!("d{number}"), change.clone())
        })
    };
    let differences: Vec<_> = (0..400).flat_map(of_key).collect();
    let comment = with_view(&differences, Vec::new(), |view| {
        markdown::render(view, false)
    });
    let rows = comment.matches("\n| 3 devices: ").count();
    let counts = comment.matches(": 3 changes\n").count();
    let rest = 400 - rows - counts;
    assert!(
        rows > 50 && counts > 50 && rest > 50,
        "{rows}, {counts}: {comment}"
    );
    for words in [
        format!(
            "\nOnly counted: {} changes in {} groups.\n",
            3 * (400 - rows),
            400 - rows
        ),
        format!(
            "\nIn {rest} more groups:\n\n- `postureAttributes`: {} changes\n",
            3 * rest
        ),
        format!("\n- `postureAttributes[custom:key{rows:03}]` `"),
    ] {
        assert!(comment.contains(&words), "{words} is not in {comment}");
    }
    assert_eq!(changes_in(&comment), 1200);
    assert!(comment.len() < 60_000);
}
