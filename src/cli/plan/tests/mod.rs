//! What a reader of a plan sees, for few and for many devices, and for names that devices made up.

mod groups;

use std::fmt::Write as _;

use jiff::Timestamp;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr as _;

use super::{
    group::{Group, groups},
    markdown, text,
    view::{ChangeView, Note, Totals, View},
};
use crate::{
    cli::table::Style,
    model::{AttributeValue, DesiredAttribute, Device, RouteSet, SettingValue, TagSet},
    plan::{Change, Difference, Hold, Impact, ListChange, PolicyKey, Suspender, Why},
};

fn policy() -> PolicyKey {
    PolicyKey::new("network", "servers")
}

fn difference(number: usize, device: &str, change: Change) -> Difference {
    Difference {
        node: format!("n{number}CNTRL").parse().unwrap(),
        device: device.to_owned(),
        change,
        why: Why::Declared,
        cause: None,
        owner: policy(),
        others: Vec::new(),
        hold: None,
    }
}

fn tags(before: &[&str], after: &[&str]) -> Change {
    let set = |tags: &[&str]| -> TagSet { tags.iter().map(|tag| tag.parse().unwrap()).collect() };
    Change::List(ListChange::Tags {
        before: set(before),
        after: set(after),
    })
}

fn routes(before: usize, after: usize) -> Change {
    let set = |count: usize| -> RouteSet {
        let all = (0..count).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
        all.map(|route| route.parse().unwrap()).collect()
    };
    Change::List(ListChange::EnabledRoutes {
        before: set(before),
        after: set(after),
    })
}

/// The plan of these differences, sorted by device as of a tailnet.
fn with_view<T>(differences: &[Difference], notes: Vec<Note>, look: impl Fn(&View<'_>) -> T) -> T {
    let mut device = Device::plain("n1CNTRL".parse().unwrap());
    device.user = "amelie@example.com".to_owned();
    let changes = differences.iter().map(|difference| {
        let impact = Impact::of(&difference.change, &device, Timestamp::UNIX_EPOCH);
        ChangeView::of(difference, impact)
    });
    let mut changes: Vec<_> = changes.collect();
    changes.sort_by_key(|change| (change.device, change.node_id));
    let totals = Totals {
        devices: 299,
        policies: 1,
        ..Totals::of(&changes)
    };
    look(&View {
        changes,
        released: Vec::new(),
        notes,
        totals,
    })
}

fn style(width: u16) -> Style {
    Style {
        width: Some(width),
        color: false,
    }
}

/// Two changes of each device: one that takes a tag away, and one that does not disrupt.
fn of_devices(count: usize) -> Vec<Difference> {
    let devices = (1..=count).map(|number| (number, format!("server-{number:02}")));
    let both = devices.flat_map(|(number, name)| {
        let expiry = Change::Setting {
            before: Some(SettingValue::KeyExpiryDisabled(false)),
            after: SettingValue::KeyExpiryDisabled(true),
        };
        [
            difference(
                number,
                &name,
                tags(&["tag:server", "tag:syd"], &["tag:server"]),
            ),
            difference(number, &name, expiry),
        ]
    });
    both.collect()
}

/// The plan at three widths.
fn at_widths(count: usize) -> String {
    let differences = of_devices(count);
    with_view(&differences, Vec::new(), |view| {
        let mut all = String::new();
        for width in [80, 120, 200] {
            let _ = writeln!(all, "{width}:\n{}", text::render(view, style(width), false));
        }
        all
    })
}

#[test]
fn a_change_of_one_device_has_its_name() {
    insta::assert_snapshot!(at_widths(1), @r#"
    80:
    DEVICES    SETTING    CHANGE
    server-01  tags       -tag:syd
               (disruptive: takes away tag:syd; declared by network/servers)
    server-01  keyExpiry  Enabled → Disabled  (declared by network/servers)

    2 changes on 1 device (1 disruptive); 1 policy, 299 devices in the tailnet.

    120:
    DEVICES    SETTING    CHANGE
    server-01  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
    server-01  keyExpiry  Enabled → Disabled  (declared by network/servers)

    2 changes on 1 device (1 disruptive); 1 policy, 299 devices in the tailnet.

    200:
    DEVICES    SETTING    CHANGE
    server-01  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
    server-01  keyExpiry  Enabled → Disabled  (declared by network/servers)

    2 changes on 1 device (1 disruptive); 1 policy, 299 devices in the tailnet.
    "#);
}

#[test]
fn nine_devices_are_one_change_with_their_names_below() {
    insta::assert_snapshot!(at_widths(9), @r#"
    80:
    DEVICES    SETTING    CHANGE
    9 devices  tags       -tag:syd
               (disruptive: takes away tag:syd; declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06,
               server-07, server-08, server-09
    9 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06,
               server-07, server-08, server-09

    18 changes on 9 devices (9 disruptive); 1 policy, 299 devices in the tailnet.

    120:
    DEVICES    SETTING    CHANGE
    9 devices  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06, server-07, server-08, server-09
    9 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06, server-07, server-08, server-09

    18 changes on 9 devices (9 disruptive); 1 policy, 299 devices in the tailnet.

    200:
    DEVICES    SETTING    CHANGE
    9 devices  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06, server-07, server-08, server-09
    9 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)
               server-01, server-02, server-03, server-04, server-05, server-06, server-07, server-08, server-09

    18 changes on 9 devices (9 disruptive); 1 policy, 299 devices in the tailnet.
    "#);
}

#[test]
fn ten_devices_are_counted() {
    insta::assert_snapshot!(at_widths(10), @r#"
    80:
    DEVICES     SETTING    CHANGE
    10 devices  tags       -tag:syd
                (disruptive: takes away tag:syd; declared by network/servers)
    10 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)

    20 changes on 10 devices (10 disruptive); 1 policy, 299 devices in the tailnet.

    120:
    DEVICES     SETTING    CHANGE
    10 devices  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
    10 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)

    20 changes on 10 devices (10 disruptive); 1 policy, 299 devices in the tailnet.

    200:
    DEVICES     SETTING    CHANGE
    10 devices  tags       -tag:syd  (disruptive: takes away tag:syd; declared by network/servers)
    10 devices  keyExpiry  Enabled → Disabled  (declared by network/servers)

    20 changes on 10 devices (10 disruptive); 1 policy, 299 devices in the tailnet.
    "#);
}

#[test]
fn seventy_five_devices_take_as_many_lines_as_ten() {
    let text = at_widths(75);
    assert_eq!(text.lines().count(), at_widths(10).lines().count());
    assert!(text.contains("\n75 devices  tags"), "{text}");
    let all = with_view(&of_devices(75), Vec::new(), |view| {
        text::render(view, style(120), true)
    });
    for number in 1..=75 {
        assert_eq!(
            all.matches(&format!("server-{number:02}")).count(),
            2,
            "{all}"
        );
    }
}

#[test]
fn the_most_severe_changes_come_first() {
    let held = |number, hold| Difference {
        hold: Some(hold),
        ..difference(number, &format!("a-{number}"), routes(0, 1))
    };
    let differences = [
        difference(1, "a-1", routes(1, 2)),
        held(2, Hold::Suspended(Suspender::Policy)),
        held(3, Hold::Protected),
        difference(4, "z-disruptive", routes(2, 1)),
    ];
    let shown = with_view(&differences, Vec::new(), |view| {
        let groups = groups(&view.changes);
        groups.iter().map(Group::devices).collect::<Vec<_>>()
    });
    assert_eq!(shown, ["z-disruptive", "a-3", "a-1", "a-2"]);
}

#[test]
fn three_thousand_routes_are_shortened_with_exact_counts() {
    let differences = [difference(1, "router", routes(3000, 0))];
    let (table, comment) = with_view(&differences, Vec::new(), |view| {
        let table = text::render(view, Style::default(), false);
        (table, markdown::render(view, false))
    });
    insta::assert_snapshot!(table, @r#"
    DEVICES  SETTING        CHANGE
    router   enabledRoutes  -10.0.0.0/24 -10.0.1.0/24 -10.0.2.0/24 -10.0.3.0/24 … 2993 more … -10.11.181.0/24 -10.11.182.0/24 -10.11.183.0/24 (3000 removed)  (disruptive: withdraws 10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24, … 2993 more …, 10.11.181.0/24, 10.11.182.0/24, 10.11.183.0/24; declared by network/servers)

    1 change on 1 device (1 disruptive); 1 policy, 299 devices in the tailnet.
    "#);
    insta::assert_snapshot!(comment, @r#"
    ### tsdp plan

    1 change on 1 device (1 disruptive); 1 policy, 299 devices in the tailnet.

    | devices | setting | change | why |
    |---|---|---|---|
    | `router` | `enabledRoutes` | `-10.0.0.0/24 -10.0.1.0/24 -10.0.2.0/24 -10.0.3.0/24 … 2993 more … -10.11.181.0/24 -10.11.182.0/24 -10.11.183.0/24 (3000 removed)` | **disruptive**: withdraws 10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24, … 2993 more …, 10.11.181.0/24, 10.11.182.0/24, 10.11.183.0/24; declared by network/servers |
    "#);
}

#[test]
fn different_users_and_many_different_values_are_one_group() {
    let mut differences = Vec::new();
    for number in 0..20 {
        let before = Some(SettingValue::Name(format!("old-{number}").parse().unwrap()));
        let after = SettingValue::Name("new".parse().unwrap());
        let change = Change::Setting { before, after };
        differences.push(difference(number, &format!("d-{number:02}"), change));
    }
    let table = with_view(&differences, Vec::new(), |view| {
        text::render(view, Style::default(), false)
    });
    assert!(
        table.contains("20 devices  name     20 values → new"),
        "{table}"
    );
}

#[test]
fn a_name_can_neither_forge_a_comment_nor_control_a_terminal() {
    let name = "`|\n@amelie #1 <img src=x> [a](https://x.example) \u{1b}[31m\u{202e}\\| GH-1 www.x.example";
    let message = format!("no device has the hostname {name}");
    let note = Note {
        policy: "network/a".to_owned(),
        message,
        overridden: None,
    };
    let differences = [difference(1, name, routes(0, 1))];
    let (table, comment) = with_view(&differences, vec![note], |view| {
        let table = text::render(view, style(80), false);
        (table, markdown::render(view, false))
    });
    assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table}");
    // Word joiners are invisible.
    let comment = comment.replace('\u{2060}', "¦");
    insta::assert_snapshot!(comment, @r#"
    ### tsdp plan

    1 change on 1 device (0 disruptive); 1 policy, 299 devices in the tailnet.

    | devices | setting | change | why |
    |---|---|---|---|
    | `'\|\u{a}@amelie #1 <img src=x> [a](https://x.example) \u{1b}[31m\u{202e}\\| GH-1 www.x.example` | `enabledRoutes` | `+10.0.0.0/24` | declared by network/servers |

    - `network/a`: no device has the hostname \`\|\\u{a}@¦amelie \#¦1 \<img src=x\> \[a\](https:¦//x.example) \\u{1b}\[31m\\u{202e}\\\| GH¦-1 www¦.x.example
    "#);
}

/// Names as devices and the API can report them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,12}",
        "\\PC{0,40}",
        "[`|@#<>\\[\\]()\\\\*_~&\\n\u{1b}\u{202e}界]{1,30}",
        "[a-z]{300,900}",
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..30_usize, 0..30_usize).prop_map(|(before, after)| routes(before, after)),
        Just(tags(&["tag:a"], &["tag:b"])),
        Just(tags(&[], &["tag:b"])),
        any::<bool>().prop_map(|disabled| Change::Setting {
            before: None,
            after: SettingValue::KeyExpiryDisabled(disabled),
        }),
        (0..400_u16, any::<bool>()).prop_map(|(key, value)| Change::Attribute {
            key: format!("custom:k{key}").parse().unwrap(),
            before: None,
            after: Some(DesiredAttribute {
                value: AttributeValue::Boolean(value),
                expiry: None,
            }),
        }),
    ]
}

fn any_differences() -> impl Strategy<Value = Vec<Difference>> {
    let hold = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Hold::Protected)),
        1 => Just(Some(Hold::Observed)),
        1 => name().prop_map(|name| Some(Hold::NameTaken(name))),
    ];
    let one = (name(), any_change(), hold);
    proptest::collection::vec(one, 0..300).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(|(number, (name, change, hold))| Difference {
            hold,
            ..difference(number, &name, change)
        })
        .collect()
    })
}

/// The numbers at the beginning of these words, summed up.
fn sum(text: &str, lines: impl Fn(&str) -> Option<&str>) -> usize {
    let counts = text.lines().filter_map(lines);
    counts
        .map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

/// The number of changes in the rows and in the counts below them.
fn changes_in(comment: &str) -> usize {
    let rows = comment
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| devices |"));
    let rows: usize = rows
        .map(|row| {
            let devices = row.trim_start_matches("| ");
            let count = devices
                .split_once(" devices")
                .map(|(count, _)| count.parse());
            count.and_then(Result::ok).unwrap_or(1)
        })
        .sum();
    let counted = |line: &str| line.starts_with("- `") && (line.contains(" change"));
    rows + sum(comment, |line| {
        let (_, rest) = line.split_once("`: ").filter(|_| counted(line))?;
        Some(rest)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_comment_has_its_limit_and_counts_every_change(differences in any_differences(), all: bool) {
        let (comment, expected) = with_view(&differences, Vec::new(), |view| {
            (markdown::render(view, all), view.changes.len())
        });
        prop_assert!(comment.len() <= 65_536, "{} bytes", comment.len());
        prop_assert_eq!(changes_in(&comment), expected, "{}", comment);
        let has_rows = comment.contains("|---|---|---|---|\n| ");
        prop_assert_eq!(has_rows, expected > 0, "{}", comment);
        prop_assert_eq!(comment.find(['\u{1b}', '\u{202e}']), None);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal(differences in any_differences(), width in 40_u16..=200, all: bool) {
        let (table, shown, expected) = with_view(&differences, Vec::new(), |view| {
            let groups = groups(&view.changes);
            let shown: usize = groups.iter().map(|group| group.changes.len()).sum();
            (text::render(view, style(width), all), shown, view.changes.len())
        });
        prop_assert_eq!(shown, expected);
        for line in table.lines() {
            prop_assert!(line.width() <= usize::from(width), "{}: {line}", line.width());
        }
        prop_assert_eq!(table.find(['\u{1b}', '\u{202e}']), None);
    }
}
