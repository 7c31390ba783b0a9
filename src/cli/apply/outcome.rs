//! What became of the changes, at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    api::Reason,
    cli::output::printable,
    model::NodeId,
    plan::{Difference, Field, Hold},
    tailnet::{Engine, Failure, RemainingChange},
};

/// What became of the changes that were agreed to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How many there were to be.
    total: usize,
    /// How many were made.
    made: usize,
    /// How many somebody else had made meanwhile, or are no wish any more.
    needless: usize,
    /// What could not be made: the setting, and why.
    failed: Vec<(String, String)>,
    /// What was not sent.
    not_sent: Vec<String>,
    /// What differs otherwise than was shown, and is left so.
    moved: Vec<(String, String)>,
    /// What was held from the beginning.
    held: usize,
    /// Why the tailnet could not be asked any more.
    outage: Option<String>,
    /// It was interrupted.
    interrupted: bool,
}

/// As shells have it for what SIGINT has ended.
pub(super) const INTERRUPTED: u8 = 130;

impl Outcome {
    /// Compares what was agreed to with what was made and with what differs still.
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
        let undone = engine.remaining();
        let mut undone: BTreeMap<_, _> = undone.map(|it| (key(it.difference), it)).collect();
        let is_known = engine.has_read();
        for difference in approved {
            let key = key(difference);
            match undone.remove(&key) {
                Some(undone) => outcome.add(named(difference), &undone),
                None if made.contains(&key) => outcome.made += 1,
                None if is_known => outcome.needless += 1,
                None => outcome.not_sent.push(named(difference)),
            }
        }
        // What nobody was asked about.
        let new = undone.values();
        let new = new.filter(|it| it.difference.hold == Some(Hold::NotInApprovedPlan));
        let new = new.map(|it| (named(it.difference), other(it.difference)));
        outcome.moved.extend(new);
        let unseen = engine.unread();
        let unseen = unseen.map(|(device, failure)| (device, failure.message.clone()));
        outcome.failed.extend(unseen);
        outcome
    }

    /// So many changes were held from the beginning.
    pub fn holding(self, held: usize) -> Self {
        Self { held, ..self }
    }

    /// `named` as it was shown: a device may have another name by now.
    fn add(&mut self, named: String, undone: &RemainingChange<'_>) {
        let difference = undone.difference;
        let not_sent = |failure: &Failure| failure.reason == Reason::TailnetUnavailable;
        match &undone.failure {
            Some(failure) if !not_sent(failure) => {
                self.failed.push((named, failure.message.clone()));
            }
            _ if difference.hold.is_some() => self.moved.push((named, other(difference))),
            _ => self.not_sent.push(named),
        }
    }

    /// 0: all is as declared. 2: something is left to somebody. 1: something failed.
    pub fn code(&self) -> u8 {
        if self.interrupted {
            INTERRUPTED
        } else if self.outage.is_some() || !self.failed.is_empty() || !self.not_sent.is_empty() {
            1
        } else if self.held > 0 || !self.moved.is_empty() {
            2
        } else {
            0
        }
    }

    /// What is to be known of what was not made: a line each.
    pub fn details(&self) -> String {
        let mut text = String::new();
        let mut list = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let lines = lines.iter().map(|line| format!("  {}", printable(line)));
                text += &[vec![title.to_owned()], lines.collect(), vec![String::new()]]
                    .concat()
                    .join("\n");
            }
        };
        let with_why = |items: &[(String, String)]| -> Vec<String> {
            let items = items.iter();
            items.map(|(what, why)| format!("{what}: {why}")).collect()
        };
        list("Failed:", with_why(&self.failed));
        list(
            "Not sent, as what comes before it failed or as it was interrupted:",
            self.not_sent.clone(),
        );
        list(
            "Other than in the plan, and left as it is (plan again):",
            with_why(&self.moved),
        );
        let outage = self.outage.iter();
        list(
            "The tailnet could not be asked any more:",
            outage.cloned().collect(),
        );
        text
    }
}

fn named(difference: &Difference) -> String {
    format!("{} {}", difference.device, difference.change.field())
}

/// What it is now in the place of what was agreed to.
fn other(difference: &Difference) -> String {
    let change = &difference.change;
    let mut what = format!("{} → {}", change.before(), change.after());
    if let Some(hold) = difference
        .hold
        .as_ref()
        .filter(|hold| **hold != Hold::NotInApprovedPlan)
    {
        what = format!("{what} is held: {hold}");
    }
    what
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.interrupted {
            f.write_str("Interrupted. ")?;
        }
        if self.made == self.total {
            write!(f, "{} made", changes(self.made))?;
        } else {
            write!(f, "{} of {} made", self.made, changes(self.total))?;
        }
        let mut also = |count: usize, what: &str| match count {
            0 => Ok(()),
            count => write!(f, ", {count} {what}"),
        };
        also(self.needless, "needless by now")?;
        also(self.failed.len(), "failed")?;
        also(self.not_sent.len(), "not sent")?;
        also(self.moved.len(), "other than planned")?;
        also(self.held, "held")?;
        f.write_str(".")
    }
}

fn changes(count: usize) -> String {
    match count {
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    }
}
