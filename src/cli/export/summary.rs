//! What an export reports on stderr, as stdout may be piped into kubectl.

use crate::{cli::output::printable, model::counted};

/// How much was exported, and what was left out.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub policies: usize,
    pub files: usize,
    pub devices: usize,
    /// The devices with nothing to declare.
    pub nothing: usize,
    /// The ephemeral devices that are left out.
    pub ephemeral: usize,
    /// The devices that are shared in from other tailnets.
    pub external: usize,
    /// What cannot be declared of devices without a policy.
    pub gaps: Vec<String>,
}

/// The most gaps that are named.
const MAX_GAPS: usize = 10;

impl Summary {
    pub fn print(&self) {
        // To stderr: stdout may be the manifests themselves.
        eprint!("{self}");
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} for {} in {}.",
            counted(self.policies, "policy"),
            counted(self.devices, "device"),
            counted(self.files, "file"),
        )?;
        let left_out = [
            (
                self.nothing,
                "with nothing to declare but defaults (--all writes them)",
            ),
            (
                self.ephemeral,
                "ephemeral (--include-ephemeral writes them)",
            ),
            (self.external, "shared in from other tailnets"),
        ];
        for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "Left out: {count} {why}.")?;
        }
        for gap in self.gaps.iter().take(MAX_GAPS) {
            writeln!(f, "Not declared: {}", printable(gap))?;
        }
        // Ten thousand devices can have as many gaps, and the files name them too.
        let more = self.gaps.len().saturating_sub(MAX_GAPS);
        if more > 0 {
            writeln!(
                f,
                "Not declared: {more} more settings of devices without a policy"
            )?;
        }
        Ok(())
    }
}
