//! As `random`, and at times someone signs in on a device again, or the API reports a device in a form that cannot
//! be read.

use std::time::Duration;

use super::{History, World, random};

pub const HISTORY: History = History {
    name: "odd_devices",
    run: |seed| random::run_history(seed, World::disturb_oddly),
    share: Duration::from_secs(12),
};

#[test]
fn new_owners_and_unreadable_fields_lead_to_no_wrong_decision() {
    HISTORY.run_share();
}
