//! The page: everything in one file, with a policy that lets a browser load nothing else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use super::{
    changes,
    devices::{self, Row, STATES},
    picture, policies,
    routes::Routes,
};
use crate::{
    cli::{
        output::printable,
        plan::{PlanRun, View},
    },
    model::counted,
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of a tailnet. `source` is where the policies come from.
pub(super) fn render(run: &PlanRun, source: Option<&str>) -> serde_json::Result<String> {
    let view = run.view();
    let rows = devices::rows(run, &view, source.is_some());
    let data = devices::json(&rows)?;
    let domain = run.snapshot.fleet.domain().unwrap_or_default();
    let title = format!("Tailnet {}", printable(&domain));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(security_policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.source { (origin(run, source)) }
                    (tiles(&view, &rows, source.is_some()))
                }
                main {
                    @if source.is_some() {
                        p.totals { (view.totals) }
                        (changes::of(&view))
                        (policies::of(run, &view, &rows))
                    }
                    (routes(&Routes::of(run, &view)))
                    (list(&rows, source.is_some()))
                }
                script #data type="application/json" { (PreEscaped(data)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

/// Lets the browser run this script and apply this style, and load nothing.
fn security_policy() -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

fn origin(run: &PlanRun, source: Option<&str>) -> String {
    let time = run.now.strftime("%Y-%m-%d %H:%M UTC");
    match source {
        Some(source) => format!("Observed {time}. Policies: {}.", printable(source)),
        None => format!("Observed {time}, without policies."),
    }
}

/// The numbers at the top. Each one leads to the devices that it counts.
fn tiles(view: &View<'_>, rows: &[Row], has_policies: bool) -> Markup {
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let mut tiles = vec![("all", "devices", rows.len(), "")];
    if has_policies {
        let shown = [
            ("in sync", "in sync", "green"),
            ("changes", "with changes", "blue"),
            ("held", "held", "yellow"),
            ("unmanaged", "unmanaged", "gray"),
        ];
        tiles.extend(shown.map(|(state, label, class)| (state, label, count(state), class)));
    }
    let exits = rows.iter().filter(|row| row.exit).count();
    let routers = rows.iter().filter(|row| row.router).count();
    tiles.extend([
        ("routers", "routers", routers, ""),
        ("exits", "exit nodes", exits, ""),
    ]);
    let disruptive = view.totals.disruptive;
    html! {
        nav.tiles {
            @for (show, label, count, class) in tiles {
                a.tile.(class) href=(format!("#show={}", show.replace(' ', "+"))) {
                    strong { (count) } " " (label)
                }
            }
            @if disruptive > 0 {
                a.tile.red href="#changes" { strong { (disruptive) } " disruptive" }
            }
        }
    }
}

fn routes(routes: &Routes) -> Markup {
    html! {
        @if !routes.routers.is_empty() {
            section #routes {
                h2 { "Routes and exit nodes" }
                (picture::of(routes))
            }
        }
    }
}

/// The list, whose rows the script writes.
fn list(rows: &[Row], has_policies: bool) -> Markup {
    let mut columns = vec![("name", "Device"), ("owner", "Tags or user"), ("os", "OS")];
    if has_policies {
        columns.push(("policies", "Policies"));
    }
    columns.extend([
        ("state", "State"),
        ("routes", "Routes"),
        ("key", "Key"),
        ("seen", "Last seen (UTC)"),
    ]);
    let states = STATES
        .iter()
        .filter(|state| rows.iter().any(|row| row.state == **state));
    html! {
        section #list {
            h2 { "Devices" }
            form.controls {
                input #search type="search" placeholder="Search" aria-label="Search devices" autocomplete="off";
                select #show aria-label="Show" {
                    option value="all" { "All devices" }
                    @for state in states { option value=(state) { (state) } }
                    option value="routers" { "routers" }
                    option value="exits" { "exit nodes" }
                }
                select #sort aria-label="Sort by" {
                    @for (key, label) in &columns { option value=(key) { "Sort by " (label) } }
                }
                output #count {}
            }
            noscript { p { "The list needs JavaScript, which this browser does not run." } }
            table #devices .cards {
                thead {
                    tr {
                        @for (key, label) in &columns {
                            th aria-sort="none" { button type="button" data-sort=(key) { (label) } }
                        }
                    }
                }
                tbody {}
            }
            button #more type="button" hidden { "Show more" }
            p #nothing hidden { "No device matches." }
        }
        footer { p { (counted(rows.len(), "device")) ". Written by tsdp " (env!("CARGO_PKG_VERSION")) "." } }
    }
}
