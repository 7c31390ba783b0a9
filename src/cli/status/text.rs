//! The page for people.

use comfy_table::Color;
use jiff::Timestamp;

use super::page::Page;
use crate::{
    cli::{
        output::printable,
        table::{Style, lines},
    },
    model::counted,
};

/// The number of changed policies that the page names.
const NAMED: usize = 10;

impl Page {
    /// The page for a terminal.
    pub fn text(&self, style: Style) -> String {
        let parts = [
            self.verdict(),
            self.leadership(),
            self.tailnets(style),
            self.policies(style),
            self.held(),
            self.changed(),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("\n")
    }

    fn verdict(&self) -> String {
        if self.problems.is_empty() {
            return "All is well.\n".to_owned();
        }
        let problems = self.problems.iter();
        let problems: Vec<String> = problems
            .map(|it| format!("- {}\n", printable(it)))
            .collect();
        format!("Action required:\n{}", problems.concat())
    }

    fn leadership(&self) -> String {
        let leader = match &self.leader {
            Some(leader) => format!(
                "{}, lease renewed {} ago",
                printable(&leader.holder),
                self.ago(leader.renewed)
            ),
            None => match &self.leader_unknown {
                Some(why) => format!("unknown, {}", printable(why)),
                None => "none".to_owned(),
            },
        };
        let images = self.versions.controller.join(", ");
        let controller = match images.as_str() {
            "" => String::new(),
            images => format!(", controller {images}"),
        };
        let program = self.versions.program;
        format!("leader: {leader}\nversions: tsdp {program}{controller}\n")
    }

    fn tailnets(&self, style: Style) -> String {
        let titles = [
            "TAILNET",
            "DEVICES",
            "UNMANAGED",
            "UNREADABLE",
            "CHANGED",
            "LIMIT",
            "LAST POLL",
            "REASON",
        ];
        let mut table = style.table(titles);
        let number = |number: Option<u32>| number.map(|it| it.to_string()).unwrap_or_default();
        for tailnet in &self.tailnets {
            let color = (!tailnet.ready).then_some(Color::DarkYellow);
            table.add_row([
                style.cell(&tailnet.name, None),
                style.cell(number(tailnet.devices), None),
                style.cell(number(tailnet.unmanaged_devices), None),
                style.cell(tailnet.unreadable_devices, None),
                style.cell(number(tailnet.changed_devices), None),
                style.cell(number(tailnet.change_limit), None),
                style.cell(self.ago(tailnet.last_poll), None),
                style.cell(&tailnet.reason, color),
            ]);
        }
        if table.is_empty() {
            return "There is no TailscaleTailnet.\n".to_owned();
        }
        lines(&table) + "\n"
    }

    fn policies(&self, style: Style) -> String {
        let mut table = style.table(["POLICIES", "REASON", "FIRST"]);
        for reason in &self.policies {
            let color = reason.must_act.then_some(Color::DarkYellow);
            let more = match reason.policies - reason.names.len() {
                0 => "",
                _ => ", …",
            };
            table.add_row([
                style.cell(reason.policies, None),
                style.cell(&reason.reason, color),
                style.cell(format!("{}{more}", reason.names.join(", ")), None),
            ]);
        }
        if table.is_empty() {
            return "There is no TailscaleDevicePolicy.\n".to_owned();
        }
        lines(&table) + "\n"
    }

    fn held(&self) -> String {
        let plans = self.held.iter().map(|held| {
            let (changes, devices) = (
                counted(held.changes, "change"),
                counted(held.devices, "device"),
            );
            let disruptive = match held.disruptive_changes {
                0 => String::new(),
                some => format!(", {some} disruptive"),
            };
            format!(
                "{} holds {changes} on {devices}{disruptive}:\n  {}\n",
                held.policy, held.command
            )
        });
        plans.collect::<Vec<String>>().concat()
    }

    fn changed(&self) -> String {
        let named = self.changed.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|it| format!("{} {} ago", it.policy, self.ago(Some(it.at))))
            .collect();
        if named.is_empty() {
            return "Nothing changed within the last hour.\n".to_owned();
        }
        let more = if self.changed.len() > NAMED {
            ", …"
        } else {
            ""
        };
        format!("changed within the last hour: {}{more}\n", named.join(", "))
    }

    /// `4m`, as kubectl writes it.
    fn ago(&self, at: Option<Timestamp>) -> String {
        let Some(at) = at else {
            return String::new();
        };
        // The clock of another machine may be ahead.
        let seconds = self.now.duration_since(at).as_secs().max(0);
        match seconds {
            0..=119 => format!("{seconds}s"),
            120..=7199 => format!("{}m", seconds / 60),
            7200..=172_799 => format!("{}h", seconds / 3600),
            _ => format!("{}d", seconds / 86_400),
        }
    }
}
