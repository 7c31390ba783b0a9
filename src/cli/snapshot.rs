//! A snapshot of a tailnet, for commands that plan or describe it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::status_line::StatusLine;
use crate::{
    model::{Attributes, ChangeLimit, Device, NodeId, UnreadableDevices},
    plan::{self, Admission, DeviceIndex, DevicePlan, PolicyInput, PolicyKey, TailnetPlan},
    tailscale::{Client, Error, Kind},
};

/// The observed state of a tailnet.
pub(super) struct Snapshot {
    /// Its devices, read with one request.
    pub fleet: DeviceIndex,
    /// The attributes that the command needs, read with one request for each device.
    pub attributes: BTreeMap<NodeId, Attributes>,
    /// How many devices the list has whose identity cannot be read.
    pub skipped: usize,
    /// Devices that could not be read completely, and why.
    pub failures: BTreeMap<NodeId, Error>,
}

/// The maximum number of in-flight requests. The budget limits their rate.
const MAX_IN_FLIGHT: usize = 16;

impl Snapshot {
    /// Reads the list of devices.
    pub async fn new(client: &Client) -> Result<Self, Error> {
        let list = client.list().await?;
        let fleet = DeviceIndex::new(list.devices);
        let mut unreadable = UnreadableDevices::default();
        for device in fleet.devices().filter_map(Device::unread) {
            unreadable.push(device);
        }
        unreadable.append(&list.skipped);
        // Reported by each command, as what depends on these fields is missing from its output.
        report(&unreadable);
        Ok(Self {
            fleet,
            attributes: BTreeMap::new(),
            skipped: list.skipped.total,
            failures: BTreeMap::new(),
        })
    }

    /// Reports the devices that could not be read completely.
    pub fn print_failures(&self) {
        for (node, error) in &self.failures {
            eprintln!("tsdp: {node} could not be read completely: {error}");
        }
    }

    /// Reads the attributes of these devices. A device that fails does not stop the others, unless all
    /// must fail for the same reason.
    pub async fn read_attributes(
        &mut self,
        client: &Client,
        nodes: Vec<NodeId>,
    ) -> Result<(), Error> {
        let mut progress = Progress::new("attributes", nodes.len());
        // Lazy: the stream below starts only as many as may be in flight.
        let read = nodes.into_iter().map(async |node| {
            let attributes = client.attributes(&node).await;
            (node, attributes)
        });
        let mut responses = stream::iter(read).buffer_unordered(MAX_IN_FLIGHT);
        while let Some((node, response)) = responses.next().await {
            progress.step();
            if let Some(attributes) = self.unless_failed(&node, response)? {
                self.attributes.insert(node, attributes);
            }
        }
        Ok(())
    }

    /// Reads the routes of these devices, for a list that does not report them.
    pub async fn read_routes(&mut self, client: &Client, nodes: Vec<NodeId>) -> Result<(), Error> {
        let mut progress = Progress::new("routes", nodes.len());
        let read = nodes.into_iter().map(async |node| {
            let routes = client.routes(&node).await;
            (node, routes)
        });
        let mut responses = stream::iter(read).buffer_unordered(MAX_IN_FLIGHT);
        while let Some((node, response)) = responses.next().await {
            progress.step();
            let routes = self.unless_failed(&node, response)?;
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

    /// Plans policies for the tailnet, and reads the routes and attributes that they need. Holds changes of
    /// more devices than the limit allows.
    pub async fn plan(
        &mut self,
        client: &Client,
        policies: &[PolicyInput],
        admission: &Admission,
        limit: ChangeLimit,
        now: Timestamp,
    ) -> Result<TailnetPlan, Error> {
        // A plan without routes and attributes knows which devices need them, so that no other is read.
        let first = plan::plan_tailnet(policies, admission, &self.fleet, &self.attributes, now);
        let unread = |is_unread: fn(&DevicePlan) -> bool| -> Vec<NodeId> {
            let unread = first.devices.iter().filter(|(_, plan)| is_unread(plan));
            unread.map(|(node, _)| node.clone()).collect()
        };
        self.read_routes(client, unread(|plan| plan.routes_unread))
            .await?;
        self.read_attributes(client, unread(|plan| plan.attributes_unread))
            .await?;
        // The limit comes last: only now is it known how many devices change.
        Ok(self.replan(policies, admission, limit, &BTreeSet::new(), now))
    }

    /// Plans policies for what was read already. The limit does not hold policies that are
    /// `approved_over_limit`.
    pub fn replan(
        &self,
        policies: &[PolicyInput],
        admission: &Admission,
        limit: ChangeLimit,
        approved_over_limit: &BTreeSet<PolicyKey>,
        now: Timestamp,
    ) -> TailnetPlan {
        let (fleet, attributes) = (&self.fleet, &self.attributes);
        // As in the controller, a percentage counts no devices that are shared in.
        match limit.devices(fleet.own_count()) {
            Some(max) => plan::plan_tailnet_within(
                policies,
                admission,
                fleet,
                attributes,
                max,
                approved_over_limit,
                now,
            ),
            None => plan::plan_tailnet(policies, admission, fleet, attributes, now),
        }
    }

    /// The tailnet's own devices, without those that are shared in.
    pub fn own(&self) -> impl Iterator<Item = &Device> {
        self.fleet.devices().filter(|device| !device.external)
    }

    fn unless_failed<T>(
        &mut self,
        node: &NodeId,
        response: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match response {
            Ok(response) => Ok(Some(response)),
            // A request for each of thousands of devices would only repeat the same error.
            Err(error) if concerns_all(&error) => Err(error),
            Err(error) => {
                self.failures.insert(node.clone(), error);
                Ok(None)
            }
        }
    }
}

/// Whether the request must fail alike for every other device.
fn concerns_all(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::CredentialRejected
            | Kind::NoIdentity
            | Kind::Forbidden
            | Kind::WrongTailnet
            | Kind::PlanRefused
    )
}

/// Reports on stderr which devices could not be read completely: stdout may be piped.
fn report(unreadable: &UnreadableDevices) {
    for device in &unreadable.first {
        eprintln!(
            "tsdp: the API reports a device in a form that cannot be read: {device}. What depends on that \
             is unknown"
        );
    }
    if unreadable.others() > 0 {
        eprintln!("tsdp: {} more devices cannot be read", unreadable.others());
    }
}

/// The default budget reads this many devices at once, which needs no progress.
const MAX_WITHOUT_PROGRESS: usize = 20;

/// Progress of a long read, on stderr: a counter on a terminal, else a single line.
struct Progress {
    what: &'static str,
    done: usize,
    total: usize,
    line: StatusLine,
}

impl Progress {
    fn new(what: &'static str, total: usize) -> Self {
        let line = StatusLine::new();
        let progress = Self {
            what,
            done: 0,
            total,
            line,
        };
        if total > MAX_WITHOUT_PROGRESS && !progress.line.is_shown() {
            eprintln!("Reading the {what} of {total} devices, one request each.");
        }
        progress
    }

    fn step(&mut self) {
        self.done += 1;
        self.line.draw(&format!(
            "Reading the {}: {} of {} devices",
            self.what, self.done, self.total
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Also after an error, so that its message does not continue this line.
        if self.done > 0 {
            self.line.wipe();
        }
    }
}
