//! The metrics that Prometheus expects of every process, from `/proc`. Without it (macOS) there are none.

use std::{fmt, fs};

use super::{
    definition::{CPU, MAX_FILES, OPEN_FILES, RESIDENT_MEMORY, START_TIME, VIRTUAL_MEMORY},
    page::Page,
};

/// What `/proc` says about this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: u64,
    pub max_files: Option<u64>,
    /// Unix time.
    pub started: f64,
}

/// The unit of times in `/proc`: 100 on all architectures of Linux that tsdp is built for, whatever the kernel's own
/// frequency.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Reads it; `None` if there is no `/proc`.
    pub fn read() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(
            &read("/proc/self/stat")?,
            &read("/proc/self/status")?,
            &read("/proc/self/limits").unwrap_or_default(),
            &read("/proc/stat")?,
            // One of them is that of the folder itself.
            u64::try_from(open.saturating_sub(1)).ok()?,
        )
    }

    pub fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(&CPU, |series| series.counter(&[], &self.cpu_seconds))?;
        let numbers = [
            (&RESIDENT_MEMORY, Some(self.resident_bytes)),
            (&VIRTUAL_MEMORY, Some(self.virtual_bytes)),
            (&OPEN_FILES, Some(self.open_files)),
            (&MAX_FILES, self.max_files),
        ];
        for (metric, value) in numbers {
            if let Some(value) = value {
                page.metric(metric, |series| series.gauge(&[], &value))?;
            }
        }
        page.metric(&START_TIME, |series| series.gauge(&[], &self.started))
    }

    fn parse(
        stat: &str,
        status: &str,
        limits: &str,
        system: &str,
        open_files: u64,
    ) -> Option<Self> {
        // The name of the program stands in parentheses, and may have spaces and parentheses itself.
        let (_, rest) = stat.rsplit_once(')')?;
        let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
        let (user, kernel, begun) = (field(14)?, field(15)?, field(22)?);
        let booted = number(system, "btime")?;
        Some(Self {
            cpu_seconds: (user + kernel) / TICKS_PER_SECOND,
            resident_bytes: number(status, "VmRSS:")? * 1024,
            virtual_bytes: number(status, "VmSize:")? * 1024,
            open_files,
            max_files: number(limits, "Max open files"),
            #[expect(
                clippy::cast_precision_loss,
                reason = "exact up to the year 285 million"
            )]
            started: booted as f64 + begun / TICKS_PER_SECOND,
        })
    }
}

/// The first number of the line that begins with these words.
fn number(text: &str, words: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(words))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_read_from_proc() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 3000 1 2 3";
        let status = "Name:\ta\nVmSize:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        let limits =
            "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   4096   files\n";
        let system = "cpu 1 2 3\nbtime 1700000000\n";
        let process = Process::parse(stat, status, limits, system, 12);
        let expected = Process {
            cpu_seconds: 4.0,
            resident_bytes: 1024 * 1024,
            virtual_bytes: 2048 * 1024,
            open_files: 12,
            max_files: Some(1024),
            started: 1_700_000_030.0,
        };
        assert_eq!(process, Some(expected));
        assert_eq!(Process::parse("", status, limits, system, 12), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_started_and_uses_memory() {
        let process = Process::read().unwrap();
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        assert!(
            (0.0..86_400.0).contains(&(now - process.started)),
            "{process:?}"
        );
        assert!(
            process.resident_bytes > 1_000_000 && process.open_files > 2,
            "{process:?}"
        );
    }
}
