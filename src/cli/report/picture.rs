//! The routes as a picture: devices on the left, routes on the right.

use maud::{Markup, html};

use super::routes::{Role, Routes};
use crate::model::counted;

/// The height of a device or a route.
const ROW: usize = 24;
const WIDTH: usize = 900;
/// Where the lines begin and end.
const LEFT: usize = 300;
const RIGHT: usize = 600;
/// The most letters of a name.
const MAX_NAME: usize = 34;

/// The picture with its legend.
pub(super) fn of(routes: &Routes) -> Markup {
    let rows = routes.routers.len().max(routes.spots.len());
    let height = rows * ROW;
    // Halves, so that each stands in the middle of its part.
    let place = |at: usize, of: usize| (2 * at + 1) * height / (2 * of.max(1));
    let of_router = |at| place(at, routes.routers.len());
    let of_spot = |at| place(at, routes.spots.len());
    let used: Vec<Role> = roles(routes);
    html! {
        ul.legend {
            @for role in used {
                li {
                    svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true" {
                        path class=(class(role)) d="M0 4H28" {}
                    }
                    (meaning(role))
                }
            }
        }
        div.picture {
            svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="Routes of devices" {
                @for (at, router) in routes.routers.iter().enumerate() {
                    @let y = of_router(at);
                    g.router {
                        title { (router.name) " (" (router.node) ")" }
                        @for (spot, role) in &router.lines {
                            path class=(class(*role)) d=(line(y, of_spot(*spot))) {}
                        }
                        circle cx=(LEFT) cy=(y) r="4" {}
                        text x=(LEFT - 12) y=(y + 4) text-anchor="end" { (shortened(&router.name)) }
                    }
                }
                @for (at, spot) in routes.spots.iter().enumerate() {
                    @let y = of_spot(at);
                    g.spot {
                        title { (spot.title) }
                        circle cx=(RIGHT) cy=(y) r="4" {}
                        text x=(RIGHT + 12) y=(y + 4) { (spot.label) }
                    }
                }
            }
        }
        @if routes.left_out > 0 {
            p.more { "Not drawn: " (counted(routes.left_out, "device")) " with routes. The list below has all of them." }
        }
    }
}

fn roles(routes: &Routes) -> Vec<Role> {
    let lines = routes.routers.iter().flat_map(|router| &router.lines);
    let mut roles: Vec<Role> = lines.map(|(_, role)| *role).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn line(from: usize, to: usize) -> String {
    let middle = LEFT.midpoint(RIGHT);
    format!("M{LEFT} {from}C{middle} {from} {middle} {to} {RIGHT} {to}")
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Enabled => "line",
        Role::Added => "line added",
        Role::Withdrawn => "line withdrawn",
        Role::Advertised => "line advertised",
        Role::Unadvertised => "line unadvertised",
    }
}

fn meaning(role: Role) -> &'static str {
    match role {
        Role::Enabled => "enabled",
        Role::Added => "a policy enables it",
        Role::Withdrawn => "a policy withdraws it",
        Role::Advertised => "advertised, not enabled",
        Role::Unadvertised => "enabled, not advertised",
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    let first: String = name.chars().take(MAX_NAME - 1).collect();
    first + "…"
}
