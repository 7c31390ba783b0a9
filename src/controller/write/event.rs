//! What an Event says. Its log line has the same words.

use tracing::{info, warn};

use crate::{
    controller::status,
    model::printable,
    plan::{ChangeCause, PolicyKey},
};

/// Bytes: the API server refuses notes of more than 1,024.
const MAX_NOTE: usize = 1000;

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::controller) struct Event {
    is_warning: bool,
    reason: String,
    action: &'static str,
    note: String,
    /// Reports a state. The writer logs it, once for all repetitions.
    is_state: bool,
    /// Why a change was made.
    cause: Option<ChangeCause>,
}

/// An Event that everything is as it should be.
pub(in crate::controller) fn normal(reason: &str, action: &'static str, note: &str) -> Event {
    event(false, reason, action, note)
}

/// An Event that people may have to look at.
pub(in crate::controller) fn warning(reason: &str, action: &'static str, note: &str) -> Event {
    event(true, reason, action, note)
}

fn event(is_warning: bool, reason: &str, action: &'static str, note: &str) -> Event {
    Event {
        is_warning,
        reason: reason.to_owned(),
        action,
        // Names of devices and messages of the API are in it.
        note: status::bounded(printable(note), MAX_NOTE),
        is_state: false,
        cause: None,
    }
}

impl Event {
    /// The same Event, as a report of a state.
    pub fn of_state(self) -> Self {
        Self {
            is_state: true,
            ..self
        }
    }

    /// The same Event, as a report of a change.
    pub fn caused_by(self, cause: Option<ChangeCause>) -> Self {
        Self { cause, ..self }
    }

    pub const fn kind(&self) -> &'static str {
        if self.is_warning { "Warning" } else { "Normal" }
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub const fn action(&self) -> &'static str {
        self.action
    }

    pub fn note(&self) -> &str {
        &self.note
    }

    pub const fn is_state(&self) -> bool {
        self.is_state
    }

    /// Logs the Event of a policy.
    pub fn log_of(&self, policy: &PolicyKey) {
        let (reason, note) = (&self.reason, &self.note);
        // Absent unless a change is reported.
        let cause = self.cause.map(ChangeCause::as_str);
        if self.is_warning {
            warn!(%policy, %reason, cause, "{note}");
        } else {
            info!(%policy, %reason, cause, "{note}");
        }
    }

    /// Logs the Event of a tailnet.
    pub fn log_of_tailnet(&self, tailnet: &str) {
        let (reason, note) = (&self.reason, &self.note);
        if self.is_warning {
            warn!(tailnet, %reason, "{note}");
        } else {
            info!(tailnet, %reason, "{note}");
        }
    }

    /// Logs that the Event has been repeated.
    pub fn log_repeated(&self, about: &str, times: i32) {
        let (reason, note) = (&self.reason, &self.note);
        if self.is_warning {
            warn!(about, %reason, times, "repeated: {note}");
        } else {
            info!(about, %reason, times, "repeated: {note}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_no_control_characters_and_is_short_enough_for_the_api_server() {
        let hostile = "fra\u{1b}[2J\n\u{202e}router".to_owned();
        let event = warning("Contested", "Wait", &hostile);
        assert_eq!(event.note(), "fra\\u{1b}[2J\\u{a}\\u{202e}router");
        let long = warning("Contested", "Wait", &"\u{7}".repeat(2000));
        assert!(long.note().len() <= 1024, "{}", long.note().len());
        assert!(!long.note().contains(char::is_control));
    }
}
