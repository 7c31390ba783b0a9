//! Which device carries which route, now and as desired, and where both stand in the picture.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    cli::{
        output::printable,
        plan::{PlanRun, View},
    },
    model::{Device, NodeId, Route, RouteSet, brief, counted},
    plan::{Change, ListChange},
};

/// More devices would be no picture. They are counted.
const MAX_DEVICES: usize = 400;
/// More routes of one device, which no other has, are one spot.
const MAX_OWN: usize = 3;
/// How often both sides are sorted by each other, for fewer crossings.
const SORTS: usize = 4;

/// What a device does with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// It is enabled, and stays so.
    Enabled,
    /// It is not enabled, and a policy declares it.
    Added,
    /// It is enabled, and no policy allows it.
    Withdrawn,
    /// The device advertises it, and it is not enabled.
    Advertised,
    /// It is enabled, and the device does not advertise it.
    Unadvertised,
}

/// A device in the picture.
#[derive(Debug)]
pub(super) struct Router {
    pub name: String,
    pub node: NodeId,
    /// The spots of its routes.
    pub lines: Vec<(usize, Role)>,
}

/// A route, or the routes that only one device has.
#[derive(Debug)]
pub(super) struct Spot {
    pub label: String,
    /// All its routes, shortened.
    pub title: String,
}

/// The devices that have a route, and the routes.
#[derive(Debug)]
pub(super) struct Routes {
    /// From top to bottom.
    pub routers: Vec<Router>,
    /// From top to bottom.
    pub spots: Vec<Spot>,
    /// The devices that have no room.
    pub left_out: usize,
}

/// The label of a spot: an exit node, a route, or routes of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Exit,
    One(Route),
    Several(NodeId, Role),
}

impl Routes {
    /// Reads them from the plan.
    pub fn of(run: &PlanRun, view: &View<'_>) -> Self {
        let mut changes: BTreeMap<&NodeId, Vec<&ListChange>> = BTreeMap::new();
        for change in &view.changes {
            if let Change::List(list) = &change.difference.change {
                changes.entry(change.node_id).or_default().push(list);
            }
        }
        let all = run.snapshot.own().map(|device| {
            let changes = changes.remove(&device.node_id).unwrap_or_default();
            (device, roles(device, &changes))
        });
        let mut all: Vec<_> = all.filter(|(_, roles)| !roles.is_empty()).collect();
        // Those with a change first, then those with the most routes.
        all.sort_by_cached_key(|(device, roles)| {
            let changes = |role: &Role| matches!(role, Role::Added | Role::Withdrawn);
            let is_unchanged = !roles.values().any(changes);
            (is_unchanged, Reverse(roles.len()), device.name.clone())
        });
        let left_out = all.len().saturating_sub(MAX_DEVICES);
        all.truncate(MAX_DEVICES);
        all.sort_by(|(one, _), (other, _)| {
            (&one.name, &one.node_id).cmp(&(&other.name, &other.node_id))
        });
        let mut routes = Self::placed(&all);
        routes.left_out = left_out;
        routes
    }

    fn placed(all: &[(&Device, BTreeMap<Route, Role>)]) -> Self {
        let mut carriers: BTreeMap<&Route, usize> = BTreeMap::new();
        for route in all.iter().flat_map(|(_, roles)| roles.keys()) {
            *carriers.entry(route).or_default() += 1;
        }
        let mut targets: BTreeMap<Target, RouteSet> = BTreeMap::new();
        let mut lines: Vec<BTreeSet<(Target, Role)>> = Vec::new();
        for (device, roles) in all {
            let mut own: BTreeMap<Role, usize> = BTreeMap::new();
            for (_, role) in roles.iter().filter(|(route, _)| carriers[*route] == 1) {
                *own.entry(*role).or_default() += 1;
            }
            let targets_of = roles.iter().map(|(route, role)| {
                let is_own = carriers[route] == 1 && own[role] > MAX_OWN;
                let target = match route {
                    route if route.is_exit_node() => Target::Exit,
                    _ if is_own => Target::Several(device.node_id.clone(), *role),
                    route => Target::One(*route),
                };
                targets.entry(target.clone()).or_default().insert(*route);
                (target, *role)
            });
            lines.push(targets_of.collect());
        }
        let spots: Vec<(Target, RouteSet)> = targets.into_iter().collect();
        let index: BTreeMap<&Target, usize> = spots
            .iter()
            .enumerate()
            .map(|(at, (target, _))| (target, at))
            .collect();
        let routers = all.iter().zip(&lines).map(|((device, _), lines)| Router {
            name: printable(device.label().as_str()),
            node: device.node_id.clone(),
            lines: lines
                .iter()
                .map(|(target, role)| (index[target], *role))
                .collect(),
        });
        let mut routers: Vec<Router> = routers.collect();
        let spots = spots
            .iter()
            .map(|(target, routes)| spot(target, routes))
            .collect();
        Self {
            spots: sorted(&mut routers, spots),
            routers,
            left_out: 0,
        }
    }
}

fn spot(target: &Target, routes: &RouteSet) -> Spot {
    let all: Vec<String> = routes.iter().map(ToString::to_string).collect();
    let label = match target {
        Target::Exit => "exit node".to_owned(),
        Target::One(route) => route.to_string(),
        Target::Several(..) => counted(routes.len(), "route"),
    };
    Spot {
        label,
        title: brief(&all).join(", "),
    }
}

/// What the device does with each route that it has, or that a policy declares.
fn roles(device: &Device, changes: &[&ListChange]) -> BTreeMap<Route, Role> {
    let enabled = device.enabled_routes.clone().unwrap_or_default();
    let advertised = device.advertised_routes.as_ref();
    let mut roles = BTreeMap::new();
    for route in advertised.into_iter().flatten() {
        roles.insert(*route, Role::Advertised);
    }
    for route in enabled {
        // Unknown is not unadvertised.
        let has = advertised.is_none_or(|routes| routes.contains(&route));
        let role = if has {
            Role::Enabled
        } else {
            Role::Unadvertised
        };
        roles.insert(route, role);
    }
    for change in changes {
        let (ListChange::EnabledRoutes { before, after } | ListChange::ExitNode { before, after }) =
            change
        else {
            continue;
        };
        roles.extend(after.difference(before).map(|route| (*route, Role::Added)));
        roles.extend(
            before
                .difference(after)
                .map(|route| (*route, Role::Withdrawn)),
        );
    }
    roles
}

/// Sorts both sides by the mean place of what they are joined with.
fn sorted(routers: &mut [Router], spots: Vec<Spot>) -> Vec<Spot> {
    let mut order: Vec<usize> = (0..spots.len()).collect();
    for _ in 0..SORTS {
        let mut places = vec![Vec::new(); spots.len()];
        for (at, router) in routers.iter().enumerate() {
            for (spot, _) in &router.lines {
                places[*spot].push(at);
            }
        }
        order.sort_by_key(|spot| mean(places[*spot].iter().copied()));
        let mut place = vec![0; spots.len()];
        for (at, spot) in order.iter().enumerate() {
            place[*spot] = at;
        }
        routers.sort_by_key(|router| mean(router.lines.iter().map(|(spot, _)| place[*spot])));
    }
    let mut place = vec![0; spots.len()];
    for (at, spot) in order.iter().enumerate() {
        place[*spot] = at;
    }
    for line in routers.iter_mut().flat_map(|router| &mut router.lines) {
        line.0 = place[line.0];
    }
    let mut spots: Vec<_> = place.into_iter().zip(spots).collect();
    spots.sort_by_key(|(at, _)| *at);
    spots.into_iter().map(|(_, spot)| spot).collect()
}

/// The mean, in hundredths.
fn mean(places: impl Iterator<Item = usize>) -> usize {
    let (sum, count) = places.fold((0, 0), |(sum, count), place| (sum + place, count + 1));
    (100 * sum).checked_div(count).unwrap_or_default()
}
