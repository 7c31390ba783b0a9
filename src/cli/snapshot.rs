//! One look at a tailnet, for commands that compare or describe it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal as _, Write as _},
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use crate::{
    model::{Attributes, ChangeLimit, Device, NodeId},
    plan::{self, Admission, DeviceIndex, DevicePlan, PolicyInput, PolicyKey, TailnetPlan},
    tailscale::{Client, Error, Kind},
};

/// What was read of a tailnet.
pub(super) struct Snapshot {
    /// Its devices, by one request.
    pub fleet: DeviceIndex,
    /// The attributes that were asked for, by one request for each device.
    pub attributes: BTreeMap<NodeId, Attributes>,
    /// What could not be read of a device.
    pub failures: BTreeMap<NodeId, Error>,
}

/// Requests under way at once; how many are sent at all is the budget's.
const AT_ONCE: usize = 16;

impl Snapshot {
    /// Reads the list.
    pub async fn new(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            fleet: DeviceIndex::new(client.devices().await?),
            attributes: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    /// Reads the attributes of these devices. One that fails holds up no other, unless all must
    /// fail alike.
    pub async fn read_attributes(
        &mut self,
        client: &Client,
        nodes: Vec<NodeId>,
    ) -> Result<(), Error> {
        let mut progress = Progress::new("attributes", nodes.len());
        let read = nodes.into_iter().map(async |node| {
            let attributes = client.attributes(&node).await;
            (node, attributes)
        });
        let mut answers = stream::iter(read).buffer_unordered(AT_ONCE);
        while let Some((node, answer)) = answers.next().await {
            progress.step();
            if let Some(attributes) = self.unless_failed(&node, answer)? {
                self.attributes.insert(node, attributes);
            }
        }
        Ok(())
    }

    /// Reads the routes of these devices, where the list does not tell them.
    pub async fn read_routes(&mut self, client: &Client, nodes: Vec<NodeId>) -> Result<(), Error> {
        let mut progress = Progress::new("routes", nodes.len());
        let read = nodes.into_iter().map(async |node| {
            let routes = client.routes(&node).await;
            (node, routes)
        });
        let mut answers = stream::iter(read).buffer_unordered(AT_ONCE);
        while let Some((node, answer)) = answers.next().await {
            progress.step();
            let routes = self.unless_failed(&node, answer)?;
            if let (Some(routes), Some(device)) = (routes, self.fleet.get(&node)) {
                self.fleet.insert(Device {
                    enabled_routes: Some(routes.enabled),
                    advertised_routes: Some(routes.advertised),
                    ..device.clone()
                });
            }
        }
        Ok(())
    }

    /// Compares the tailnet with policies, and reads what that needs besides. What would change more
    /// devices than the limit allows is held.
    pub async fn plan(
        &mut self,
        client: &Client,
        policies: &[PolicyInput],
        guards: &Admission,
        limit: ChangeLimit,
        now: Timestamp,
    ) -> Result<TailnetPlan, Error> {
        let first = plan::plan_tailnet(policies, guards, &self.fleet, &self.attributes, now);
        let unread = |what: fn(&DevicePlan) -> bool| -> Vec<NodeId> {
            let unread = first.devices.iter().filter(|(_, plan)| what(plan));
            unread.map(|(node, _)| node.clone()).collect()
        };
        self.read_routes(client, unread(|plan| plan.routes_unread))
            .await?;
        self.read_attributes(client, unread(|plan| plan.attributes_unread))
            .await?;
        Ok(self.compare(policies, guards, limit, &BTreeSet::new(), now))
    }

    /// Compares what was read with policies. The limit does not hold those that somebody has
    /// `released`.
    pub fn compare(
        &self,
        policies: &[PolicyInput],
        guards: &Admission,
        limit: ChangeLimit,
        released: &BTreeSet<PolicyKey>,
        now: Timestamp,
    ) -> TailnetPlan {
        let (fleet, attributes) = (&self.fleet, &self.attributes);
        match limit.devices(fleet.own_count()) {
            Some(room) => {
                plan::plan_tailnet_within(policies, guards, fleet, attributes, room, released, now)
            }
            None => plan::plan_tailnet(policies, guards, fleet, attributes, now),
        }
    }

    /// The devices that are the tailnet's own, by id.
    pub fn own(&self) -> impl Iterator<Item = &Device> {
        self.fleet.devices().filter(|device| !device.external)
    }

    fn unless_failed<T>(
        &mut self,
        node: &NodeId,
        answer: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if concerns_all(&error) => Err(error),
            Err(error) => {
                self.failures.insert(node.clone(), error);
                Ok(None)
            }
        }
    }
}

/// Whether the same must come of every other device.
fn concerns_all(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::CredentialRejected | Kind::NoIdentity | Kind::Forbidden | Kind::PlanRefused
    )
}

/// What is read at once by the budget of the defaults need not be announced.
const SHORT: usize = 20;

/// How far a long reading is, on stderr: a line that moves on a terminal, one line elsewhere.
struct Progress {
    what: &'static str,
    done: usize,
    total: usize,
    moves: bool,
}

impl Progress {
    fn new(what: &'static str, total: usize) -> Self {
        let moves = io::stderr().is_terminal();
        let progress = Self {
            what,
            done: 0,
            total,
            moves,
        };
        if total > SHORT && !moves {
            eprintln!("Reading the {what} of {total} devices, one request each.");
        }
        progress
    }

    fn step(&mut self) {
        self.done += 1;
        if self.moves {
            // Without a terminal in the end, there is nobody to tell.
            let _ = write!(
                io::stderr(),
                "\rReading the {}: {} of {} devices",
                self.what,
                self.done,
                self.total
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.moves && self.done > 0 {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
