//! The outcome of an apply: the fate of each approved change, its summary, and the exit code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    cli::output::printable,
    model::{NodeId, Reason, counted},
    plan::{Difference, Field, Hold},
    tailnet::{Engine, RemainingChange},
};

/// The outcome of the approved changes. Each of them is in exactly one of `made`, `in_sync`, `failed`, `differs`
/// and `not_sent`.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The number of approved changes.
    total: usize,
    /// The number of changes that were made.
    made: usize,
    /// The number of changes that a read has shown to be made already, by someone else.
    in_sync: usize,
    /// The changes that failed, and why.
    failed: Vec<Undone>,
    /// The changes that are other ones now. They are left as they are.
    differs: Vec<Undone>,
    /// The changes that were not sent.
    not_sent: Vec<Undone>,
    /// Differences that arose after the plan, and so were never approved.
    arose: Vec<Undone>,
    /// The devices that could not be read, and why.
    unread: Vec<(String, String)>,
    /// The number of changes that were held from the start.
    held: usize,
    /// Why the API could no longer be reached.
    outage: Option<String>,
    /// Whether a signal ended the run.
    interrupted: bool,
}

/// A change that was not made.
#[derive(Debug)]
struct Undone {
    device: String,
    field: Field,
    /// Why not, if that is not the same for all.
    why: String,
}

/// The exit code that shells report for a process that SIGINT ended: 128 + 2.
pub(super) const INTERRUPTED: u8 = 130;

impl Outcome {
    /// Compares the approved changes with those that were made and those that remain.
    pub fn of(
        approved: &[&Difference],
        made: &BTreeSet<(NodeId, Field)>,
        engine: &Engine,
        interrupted: bool,
    ) -> Self {
        let mut outcome = Self {
            total: approved.len(),
            outage: engine.given_up().map(|failure| failure.message.clone()),
            interrupted,
            ..Self::default()
        };
        let key = |difference: &Difference| (difference.node.clone(), difference.change.field());
        let mut remaining: BTreeMap<_, _> = engine
            .remaining()
            .map(|it| (key(it.difference), it))
            .collect();
        for difference in approved {
            let key = key(difference);
            match remaining.remove(&key) {
                Some(remaining) => outcome.add(difference, &remaining),
                None if made.contains(&key) => outcome.made += 1,
                None if engine.has_seen_made(difference) => outcome.in_sync += 1,
                // Not compared, or no longer desired: that the plan lacks it does not prove that it is made.
                None => outcome.not_sent.push(undone(difference, String::new())),
            }
        }
        outcome.arose.extend(
            remaining
                .values()
                .filter(|it| it.difference.hold == Some(Hold::NotInApprovedPlan))
                .map(|it| undone(it.difference, other(it.difference))),
        );
        outcome.unread.extend(
            engine
                .unread()
                .map(|(device, failure)| (device, failure.message.clone())),
        );
        outcome
    }

    /// Adds the number of changes that were held from the start.
    pub fn with_held(self, held: usize) -> Self {
        Self { held, ..self }
    }

    /// `approved` has the name in the plan: the device may have another one by now.
    fn add(&mut self, approved: &Difference, remaining: &RemainingChange<'_>) {
        let difference = remaining.difference;
        match &remaining.failure {
            // An outage is reported once for the run, not for each change behind it.
            Some(failure) if failure.reason != Reason::TailnetUnavailable => {
                self.failed.push(undone(approved, failure.message.clone()));
            }
            _ if difference.hold.is_some() => {
                self.differs.push(undone(approved, other(difference)));
            }
            _ => self.not_sent.push(undone(approved, String::new())),
        }
    }

    /// 0: everything is in sync. 2: changes are left for someone to approve or plan. 1: an error.
    pub fn code(&self) -> u8 {
        // First: a shell expects 130 after an interrupt, whatever else went wrong.
        if self.interrupted {
            INTERRUPTED
        } else if self.outage.is_some()
            || !(self.failed.is_empty() && self.not_sent.is_empty() && self.unread.is_empty())
        {
            1
        } else if self.held > 0 || !(self.differs.is_empty() && self.arose.is_empty()) {
            2
        } else {
            0
        }
    }

    /// The changes that were not made, and why: a line for each kind.
    pub fn details(&self) -> String {
        let mut text = String::new();
        let mut list = |title: &str, lines: Vec<String>| {
            if lines.is_empty() {
                return;
            }
            text.push_str(title);
            for line in lines {
                text.push_str("\n  ");
                text.push_str(&printable(&line));
            }
            text.push('\n');
        };
        list("Failed:", grouped(&self.failed));
        let unread = self.unread.iter();
        list(
            "Not read:",
            unread
                .map(|(device, why)| format!("{device}: {why}"))
                .collect(),
        );
        let why = if self.interrupted {
            "Not sent, because of the interrupt or because an earlier change failed:"
        } else {
            "Not sent, because an earlier change failed or the change is no longer needed:"
        };
        list(why, grouped(&self.not_sent));
        let others = self.differs.iter().chain(&self.arose);
        list(
            "Different from the plan, and left as it is (make another plan):",
            grouped(others),
        );
        let outage = self.outage.iter();
        list(
            "The API could no longer be reached:",
            outage.cloned().collect(),
        );
        text
    }
}

/// From this number on, changes of one kind share a line.
const GROUPED: usize = 10;

/// A line for each change, or for all changes of one field for one reason if they are many.
fn grouped<'a>(changes: impl IntoIterator<Item = &'a Undone>) -> Vec<String> {
    let mut groups: BTreeMap<(&Field, String), Vec<&Undone>> = BTreeMap::new();
    for change in changes {
        let kind = (&change.field, without_request_id(&change.why));
        groups.entry(kind).or_default().push(change);
    }
    let lines = groups.into_iter().flat_map(|((field, why), changes)| {
        if changes.len() < GROUPED {
            return changes
                .iter()
                .map(|change| change.line(&change.device))
                .collect();
        }
        let devices = format!("{} devices", changes.len());
        let all = Undone {
            device: devices,
            field: field.clone(),
            why,
        };
        vec![all.line(&all.device)]
    });
    lines.collect()
}

/// `(HTTP 503, request 7f3a)` without the id, which every answer has another one of.
fn without_request_id(message: &str) -> String {
    match message.split_once(", request ") {
        Some((before, after)) => match after.split_once(')') {
            Some((_, after)) => format!("{before}){after}"),
            None => message.to_owned(),
        },
        None => message.to_owned(),
    }
}

impl Undone {
    fn line(&self, device: &str) -> String {
        match self.why.as_str() {
            "" => format!("{device} {}", self.field),
            why => format!("{device} {}: {why}", self.field),
        }
    }
}

fn undone(difference: &Difference, why: String) -> Undone {
    Undone {
        device: difference.device.clone(),
        field: difference.change.field(),
        why,
    }
}

/// The difference that now stands in the place of the approved one.
fn other(difference: &Difference) -> String {
    let change = &difference.change;
    let (before, after) = change.brief();
    let mut what = format!("{before} → {after}");
    if let Some(hold) = difference
        .hold
        .as_ref()
        .filter(|hold| **hold != Hold::NotInApprovedPlan)
    {
        what = format!("{what}, held: {hold}");
    }
    what
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.interrupted {
            f.write_str("Interrupted. ")?;
        }
        if self.made == self.total {
            write!(f, "{} made", counted(self.made, "change"))?;
        } else {
            write!(f, "{} of {} made", self.made, counted(self.total, "change"))?;
        }
        let mut also = |count: usize, what: &str| match count {
            0 => Ok(()),
            count => write!(f, ", {count} {what}"),
        };
        also(self.in_sync, "already in sync")?;
        also(self.failed.len(), "failed")?;
        also(self.not_sent.len(), "not sent")?;
        also(self.differs.len(), "other than planned")?;
        also(self.held, "held")?;
        also(self.arose.len(), "new since the plan")?;
        also(self.unread.len(), "not read")?;
        f.write_str(".")
    }
}
