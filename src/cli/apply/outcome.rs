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

/// The outcome of the approved changes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The number of approved changes.
    total: usize,
    /// The number of changes that were made.
    made: usize,
    /// The number of changes that someone else made meanwhile, or that are no longer desired.
    unnecessary: usize,
    /// The changes that failed: the setting, and why.
    failed: Vec<(String, String)>,
    /// The changes that were not sent.
    not_sent: Vec<String>,
    /// The differences that are not the ones that were shown. They are left as they are.
    differs: Vec<(String, String)>,
    /// The number of changes that were held from the start.
    held: usize,
    /// Why the API could no longer be reached.
    outage: Option<String>,
    /// Whether a signal ended the run.
    interrupted: bool,
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
        // Only a list shows that someone else made a change.
        let is_known = engine.has_read();
        for difference in approved {
            let key = key(difference);
            match remaining.remove(&key) {
                Some(remaining) => outcome.add(named(difference), &remaining),
                None if made.contains(&key) => outcome.made += 1,
                None if is_known => outcome.unnecessary += 1,
                // Without a list since the plan it is unknown whether someone else made the change.
                None => outcome.not_sent.push(named(difference)),
            }
        }
        // Differences that arose after the plan were never approved.
        outcome.differs.extend(
            remaining
                .values()
                .filter(|it| it.difference.hold == Some(Hold::NotInApprovedPlan))
                .map(|it| (named(it.difference), other(it.difference))),
        );
        outcome.failed.extend(
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

    /// `named` is the name in the plan: the device may have another one by now.
    fn add(&mut self, named: String, remaining: &RemainingChange<'_>) {
        let difference = remaining.difference;
        match &remaining.failure {
            // An outage is reported once for the run, not for each change behind it.
            Some(failure) if failure.reason != Reason::TailnetUnavailable => {
                self.failed.push((named, failure.message.clone()));
            }
            _ if difference.hold.is_some() => self.differs.push((named, other(difference))),
            _ => self.not_sent.push(named),
        }
    }

    /// 0: everything is in sync. 2: changes are left for someone to approve or plan. 1: an error.
    pub fn code(&self) -> u8 {
        // First: a shell expects 130 after an interrupt, whatever else went wrong.
        if self.interrupted {
            INTERRUPTED
        } else if self.outage.is_some() || !self.failed.is_empty() || !self.not_sent.is_empty() {
            1
        } else if self.held > 0 || !self.differs.is_empty() {
            2
        } else {
            0
        }
    }

    /// The changes that were not made, and why: a line each.
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
        let with_why = |items: &[(String, String)]| -> Vec<String> {
            items
                .iter()
                .map(|(what, why)| format!("{what}: {why}"))
                .collect()
        };
        list("Failed:", with_why(&self.failed));
        list(
            "Not sent, because an earlier change failed or because of the interrupt:",
            self.not_sent.clone(),
        );
        list(
            "Different from the plan, and left as it is (make another plan):",
            with_why(&self.differs),
        );
        let outage = self.outage.iter();
        list(
            "The API could no longer be reached:",
            outage.cloned().collect(),
        );
        text
    }
}

fn named(difference: &Difference) -> String {
    format!("{} {}", difference.device, difference.change.field())
}

/// The difference that now stands in the place of the approved one.
fn other(difference: &Difference) -> String {
    let change = &difference.change;
    let mut what = format!("{} → {}", change.before(), change.after());
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
        also(self.unnecessary, "already in sync")?;
        also(self.failed.len(), "failed")?;
        also(self.not_sent.len(), "not sent")?;
        also(self.differs.len(), "other than planned")?;
        also(self.held, "held")?;
        f.write_str(".")
    }
}
