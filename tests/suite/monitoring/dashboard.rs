//! The dashboard as Grafana reads it.

use serde_json::Value;

/// A panel with its queries.
#[derive(Clone)]
pub struct Panel {
    pub title: String,
    pub kind: String,
    pub unit: String,
    /// Left, top, width, height.
    pub place: [f64; 4],
    /// Each query and the words for its series.
    pub queries: Vec<(String, String)>,
}

/// Every panel in the order of the file; rows have no queries.
pub fn panels() -> Vec<Panel> {
    let text = include_str!("../../../deploy/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.map(panel).collect()
}

fn panel(panel: &Value) -> Panel {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = panel["targets"].as_array().cloned().unwrap_or_default();
    Panel {
        title: text(&panel["title"]),
        kind: text(&panel["type"]),
        unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
        place: ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_f64().unwrap()),
        queries: targets
            .iter()
            .map(|target| {
                (
                    filled_in(&text(&target["expr"])),
                    text(&target["legendFormat"]),
                )
            })
            .collect(),
    }
}

/// A query with the variables that Grafana fills in.
fn filled_in(query: &str) -> String {
    query
        .replace("$tailnet", ".*")
        .replace("$__rate_interval", "30s")
}

#[test]
fn panels_do_not_overlap_and_have_words_for_their_series() {
    let panels = panels();
    for (number, panel) in panels.iter().enumerate() {
        let [x, y, w, h] = panel.place;
        assert!(x + w <= 24.0, "{} is too wide", panel.title);
        for other in &panels[..number] {
            let [left, top, width, height] = other.place;
            let apart = x >= left + width || left >= x + w || y >= top + height || top >= y + h;
            assert!(apart, "{} overlaps {}", panel.title, other.title);
        }
        assert_eq!(
            panel.kind == "row",
            panel.queries.is_empty(),
            "{}",
            panel.title
        );
        for (query, legend) in &panel.queries {
            assert!(!legend.is_empty() && !query.contains('$'), "{query}");
        }
    }
}
