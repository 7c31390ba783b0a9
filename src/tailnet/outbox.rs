//! What leaves the engine: the requests in flight, the turn of each step, and the effects to carry out.
//!
//! Nothing is decided before it can be sent. The engine requests a turn; the driver waits for the budget and
//! grants one; only then does the engine pick the request, from what it knows at that moment. Device requests
//! share a few lanes, so that few changes have an unknown outcome at any time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Effect, Notification, Request, Ticket, halves::Half};
use crate::{
    plan::{Call, Difference, PolicyKey},
    tailscale::Haste,
};

/// The number of device requests in flight at once. This bounds the changes whose outcome is unknown at any
/// time.
const MAX_LANES: usize = 8;
/// A request in flight for this long no longer blocks a lane: eight devices that do not answer must not delay
/// all others.
const SLOW_AFTER: Duration = Duration::from_secs(3);
/// The number of slow requests in flight beside the others.
const MAX_SLOW: usize = 32;

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    pub request: Request,
    /// The engine's epoch when it was sent: a read of an earlier epoch is not used.
    pub epoch: u64,
    /// The differences that it removes.
    pub differences: Vec<Difference>,
    /// When it was sent (monotonic): its read is as old as that.
    pub sent_at: Duration,
    /// Not to be sent after this time (monotonic), as the reads that it depends on are too old then.
    pub until: Option<Duration>,
}

/// The kind of request that took the last turn.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Taker {
    List,
    Batch,
    #[default]
    Device,
}

/// The turn of this step, and whether one is needed.
#[derive(Debug, Default)]
struct Turn {
    granted: bool,
    wanted: bool,
    haste: Haste,
    last: Taker,
}

/// The requests in flight and the effects of a step: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    in_flight: BTreeMap<Ticket, InFlightRequest>,
    last_ticket: u64,
    turn: Turn,
    /// When the next request may be sent, if too many are in flight now.
    lane_opens_at: Option<Duration>,
    /// Parts of refused batches that are sent separately.
    halves: VecDeque<Half>,
    effects: Vec<Effect>,
}

impl Outbox {
    /// Begins a step: whether a turn is wanted is decided again.
    pub fn begin_step(&mut self) {
        self.turn.wanted = false;
        self.lane_opens_at = None;
    }

    /// Ends a step: a turn that was not used is lost. `is_quick`: the next request may use the last tokens of
    /// the budget. Returns the effects of the step.
    pub fn end_step(&mut self, is_quick: bool) -> Vec<Effect> {
        self.turn.haste = if is_quick {
            Haste::Quick
        } else {
            Haste::Routine
        };
        // The next request is decided from what is known then (docs/decisions/0008), so no turn is saved up.
        self.turn.granted = false;
        std::mem::take(&mut self.effects)
    }

    /// One request can be sent in this step.
    pub fn grant_turn(&mut self) {
        self.turn.granted = true;
    }

    pub const fn has_turn(&self) -> bool {
        self.turn.granted
    }

    /// Takes the turn of this step; `false`: there is none, and one is requested.
    pub fn take_turn(&mut self) -> bool {
        // A request that finds no turn now needs one later, so the driver must learn of it.
        self.turn.wanted |= !self.turn.granted;
        std::mem::take(&mut self.turn.granted)
    }

    /// Gives back a turn that is not needed.
    pub fn give_back_turn(&mut self) {
        self.turn.granted = true;
    }

    /// Whether a request waits for a turn: then the turn is the next occasion to send anything.
    pub const fn waits_for_turn(&self) -> bool {
        self.turn.wanted
    }

    /// How urgent the turn is that a request waits for, if one does.
    pub fn wants_turn(&self) -> Option<Haste> {
        self.turn.wanted.then_some(self.turn.haste)
    }

    /// Whether the last turn went to the list of devices.
    pub fn last_turn_went_to_list(&self) -> bool {
        self.turn.last == Taker::List
    }

    /// Whether the last turn went to a batch of attributes.
    pub fn last_turn_went_to_batch(&self) -> bool {
        self.turn.last == Taker::Batch
    }

    /// Sends a request.
    pub fn send(&mut self, request: InFlightRequest) -> Ticket {
        self.turn.last = match &request.request {
            Request::Devices => Taker::List,
            Request::Write(Call::WriteAttributes(_)) => Taker::Batch,
            _ => Taker::Device,
        };
        self.last_ticket += 1;
        let ticket = self.last_ticket();
        self.effects.push(Effect::Send {
            ticket,
            request: request.request.clone(),
            until: request.until,
        });
        self.in_flight.insert(ticket, request);
        ticket
    }

    /// The ticket of the last request.
    pub const fn last_ticket(&self) -> Ticket {
        Ticket(self.last_ticket)
    }

    pub fn in_flight(&self, ticket: Ticket) -> Option<&InFlightRequest> {
        self.in_flight.get(&ticket)
    }

    /// A request was answered, or was not sent.
    pub fn take(&mut self, ticket: Ticket) -> Option<InFlightRequest> {
        self.in_flight.remove(&ticket)
    }

    /// Whether no request is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether so many requests are in flight that a lookup waits.
    pub fn is_crowded(&self) -> bool {
        self.in_flight.len() >= MAX_LANES
    }

    /// Whether another device request may be sent. If not, notes when the next request in flight counts as
    /// slow.
    pub fn has_lane(&mut self, now: Duration) -> bool {
        let slow_from = self.in_flight.values().map(InFlightRequest::slow_from);
        let quick: Vec<Duration> = slow_from.filter(|at| *at > now).collect();
        let slow = self.in_flight.len() - quick.len();
        self.lane_opens_at = None;
        // A slow request no longer blocks a lane, so one becomes free when the oldest turns slow.
        if quick.len() >= MAX_LANES {
            let slow_soon = slow < MAX_SLOW;
            self.lane_opens_at = quick.into_iter().min().filter(|_| slow_soon);
            return false;
        }
        slow < MAX_SLOW
    }

    /// When the next request may be sent, if too many are in flight now.
    pub const fn lane_opens_at(&self) -> Option<Duration> {
        self.lane_opens_at
    }

    /// The number of slow device requests: nothing waits for their devices.
    pub fn slow_requests(&self, now: Duration) -> usize {
        let in_flight = self.in_flight.values();
        // The list is no device on the way: nothing that waits for devices waits for it.
        in_flight
            .filter(|it| it.request != Request::Devices && now >= it.slow_from())
            .count()
    }

    /// Adds parts of a refused batch.
    pub fn add_halves(&mut self, halves: impl IntoIterator<Item = Half>) {
        self.halves.extend(halves);
    }

    /// Takes the part of a refused batch that is next, and the turn for it, if there is one.
    pub fn next_half(&mut self) -> Option<Half> {
        if self.halves.is_empty() || !self.take_turn() {
            return None;
        }
        self.halves.pop_front()
    }

    /// Gives up all parts of refused batches.
    pub fn take_halves(&mut self) -> VecDeque<Half> {
        std::mem::take(&mut self.halves)
    }

    /// Reports something.
    pub fn report(&mut self, report: Effect) {
        self.effects.push(report);
    }

    /// Notifies the authors of a policy.
    pub fn notify(&mut self, key: &PolicyKey, notification: Notification) {
        let effect = Effect::Notify(key.clone(), Box::new(notification));
        self.effects.push(effect);
    }
}

impl InFlightRequest {
    fn slow_from(&self) -> Duration {
        self.sent_at + SLOW_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(request: Request, sent_at: u64) -> InFlightRequest {
        InFlightRequest {
            request,
            epoch: 1,
            differences: Vec::new(),
            sent_at: Duration::from_secs(sent_at),
            until: None,
        }
    }

    fn read(sent_at: u64) -> InFlightRequest {
        request(Request::Device("n1CNTRL".parse().unwrap()), sent_at)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_request_needs_a_turn_and_a_turn_is_good_for_one_request_in_one_step() {
        let mut outbox = Outbox::default();
        assert!(!outbox.take_turn());
        assert!(outbox.end_step(true).is_empty());
        assert_eq!(outbox.wants_turn(), Some(Haste::Quick));
        outbox.grant_turn();
        outbox.begin_step();
        assert!(outbox.take_turn() && !outbox.waits_for_turn());
        outbox.send(request(Request::Devices, 1));
        assert!(outbox.last_turn_went_to_list() && !outbox.take_turn());
        assert_eq!(outbox.end_step(false).len(), 1);
        assert_eq!(outbox.wants_turn(), Some(Haste::Routine));
        outbox.grant_turn();
        outbox.end_step(false);
        assert!(!outbox.has_turn());
    }

    #[test]
    fn each_request_has_a_ticket_and_is_answered_once() {
        let mut outbox = Outbox::default();
        let (first, second) = (outbox.send(read(0)), outbox.send(read(0)));
        assert!(first < second && second == outbox.last_ticket());
        assert!(outbox.in_flight(first).is_some() && outbox.take(first).is_some());
        assert!(outbox.in_flight(first).is_none() && outbox.take(first).is_none());
        assert!(!outbox.is_idle() && outbox.take(second).is_some() && outbox.is_idle());
    }

    #[test]
    fn eight_requests_share_the_lanes_and_slow_ones_make_room() {
        let mut outbox = Outbox::default();
        for number in 0..8 {
            assert!(outbox.has_lane(at(0)) && !outbox.is_crowded());
            outbox.send(read(number / 7));
        }
        assert!(!outbox.has_lane(at(1)) && outbox.is_crowded());
        assert_eq!(outbox.lane_opens_at(), Some(at(3)));
        assert_eq!(outbox.slow_requests(at(3)), 7);
        assert!(outbox.has_lane(at(3)) && outbox.lane_opens_at().is_none());
        for _ in 0..25 {
            outbox.send(read(0));
        }
        // So many do not answer that the API itself must be slow.
        assert!(!outbox.has_lane(at(10)));
    }
}
