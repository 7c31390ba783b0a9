//! One-shot actions: key expiries and deletions.

mod clocks;
mod deletions;
mod expiries;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    World,
    builders::policy_key,
    model::{Faults, node_id},
};
use crate::{
    plan::{Call, DeleteInactive, DesiredSettings, Stage},
    tailnet::{ActionReport, Notification},
};

pub const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);

impl World {
    pub fn is_in(&self, time: Duration) -> Timestamp {
        self.wall() + SignedDuration::try_from(time).unwrap()
    }

    pub fn calls(&self, wanted: fn(&Call) -> bool) -> usize {
        self.writes()
            .into_iter()
            .filter(|call| wanted(call))
            .count()
    }

    pub fn expiries(&self) -> usize {
        self.calls(|call| matches!(call, Call::ExpireKey(_)))
    }

    pub fn deletions(&self) -> usize {
        self.calls(|call| matches!(call, Call::Delete(_)))
    }

    /// Runs until there is one of these calls, and loses it. If it has an `effect`, only its answer is lost.
    pub fn lose_first(&mut self, calls: fn(&Self) -> usize, effect: bool) {
        while calls(self) == 0 {
            self.run_for(Duration::from_millis(1));
        }
        let delay = self.faults.delay;
        if effect {
            self.faults.answer_lost = 1.0;
        } else {
            self.faults.lost = 1.0;
        }
        self.run_for(delay);
        self.faults = Faults {
            delay,
            ..Faults::default()
        };
    }

    /// The user of a device signs in again.
    pub fn sign_in(&mut self, number: usize) {
        let expires = self.is_in(180 * DAY);
        let device = self.model.devices.get_mut(&node_id(number)).unwrap();
        device.expires = Some(expires);
    }

    pub fn action_report(&self) -> &ActionReport {
        &self.last_reports[&policy_key(0)].actions
    }

    pub fn stages(&self) -> Vec<(Stage, usize)> {
        let totals = self.action_report().totals.iter();
        totals.map(|(stage, count)| (*stage, *count)).collect()
    }

    pub fn reported_of(&self, wanted: fn(&Notification) -> bool) -> usize {
        let notifications = self.seen.notifications.iter();
        notifications
            .filter(|(_, reported)| wanted(reported))
            .count()
    }

    pub fn reported_changes(&self) -> usize {
        self.reported_of(|reported| matches!(reported, Notification::Changed(_)))
    }

    pub fn missed_reported(&self) -> usize {
        self.reported_of(|reported| matches!(reported, Notification::Missed(_)))
    }
}

pub fn expiring(at: Timestamp) -> DesiredSettings {
    DesiredSettings {
        expire_key_at: Some(at),
        ..DesiredSettings::default()
    }
}

pub fn deleting_inactive(max_per_day: u32) -> DesiredSettings {
    DesiredSettings {
        delete_inactive: Some(DeleteInactive {
            inactive_for: SignedDuration::from_hours(720),
            max_per_day,
        }),
        ..DesiredSettings::default()
    }
}

pub fn leave(world: &mut World, number: usize, away_for: Duration) {
    let last_seen = world.wall() - SignedDuration::try_from(away_for).unwrap();
    let device = world.model.devices.get_mut(&node_id(number)).unwrap();
    device.connected = Some(false);
    device.last_seen = Some(last_seen);
}
