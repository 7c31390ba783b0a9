//! Runs random histories: a share of them in CI, many of them by hand, each from a seed.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::shrink::{self, Failed};

/// A random history: everything that happens in it follows from a seed.
pub struct History {
    pub name: &'static str,
    /// Runs it once. Returns the number of steps.
    pub run: fn(u64) -> u64,
    /// How long CI runs it: all together are two minutes, one on each of two cores.
    pub share: Duration,
}

/// Histories that were run, and how much that was.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    histories: u64,
    steps: u64,
    time: Duration,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Prints a line although tests that pass print nothing.
pub fn print_line(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The first seed: `TSDP_SEED`, or else another one for each commit.
fn first_seed() -> u64 {
    number("TSDP_SEED").unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        commit().hash(&mut hasher);
        // Short enough to be copied by hand.
        hasher.finish() % 1_000_000_000 * 1000
    })
}

/// The commit, or without Git the time of the build.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let head = git.output().ok().filter(|output| output.status.success());
    head.map_or_else(built_at, |head| {
        String::from_utf8_lossy(&head.stdout).into_owned()
    })
}

fn built_at() -> String {
    let built = std::env::current_exe().and_then(|binary| binary.metadata()?.modified());
    format!("{built:?}")
}

impl History {
    /// Runs the histories of this commit for a share of the time of CI, or as many as `TSDP_SEEDS` says.
    pub fn run_share(&self) {
        let (first, count) = (first_seed(), number("TSDP_SEEDS"));
        let begin = Instant::now();
        let mut tally = Tally::default();
        let mut seed = first;
        while count.map_or(begin.elapsed() < self.share, |count| {
            tally.histories < count
        }) {
            match shrink::run(self, seed) {
                Ok(steps) => tally.note(steps, Duration::ZERO),
                Err(failed) => panic!("{}", self.story(seed, &failed)),
            }
            seed += 1;
        }
        tally.time = begin.elapsed();
        print_line(&format!(
            "{}: {} from seed {first} on",
            self.name,
            tally.words()
        ));
    }

    /// The failure of a seed as a story, and how to see it again.
    fn story(&self, seed: u64, failed: &Failed) -> String {
        let story = shrink::story(self, seed, failed);
        format!(
            "{story}\n{0} fails with seed {seed}: TSDP_SEED={seed} TSDP_SEEDS=1 cargo test --lib -- histories::{0}",
            self.name
        )
    }
}

impl Tally {
    fn note(&mut self, steps: u64, time: Duration) {
        self.histories += 1;
        self.steps += steps;
        self.time += time;
    }

    fn words(&self) -> String {
        let seconds = self.time.as_millis().max(1);
        let rate = u128::from(self.steps) * 1000 / seconds;
        format!(
            "{} histories, {} steps, {rate} steps/s",
            self.histories, self.steps
        )
    }
}

/// Histories that all threads run together.
struct Queue<'a> {
    all: &'a [History],
    /// The history that is next, and the number of its seed.
    next: (usize, u64),
    tallies: Vec<Tally>,
    stories: Vec<Vec<String>>,
}

/// After so many failures a history is not run again.
const ENOUGH: usize = 3;

impl Queue<'_> {
    /// The next history and its number; each history has its turn with each seed.
    fn take(&mut self) -> Option<(usize, u64)> {
        for _ in 0..self.all.len() {
            let (history, seed) = self.next;
            let is_last = history + 1 == self.all.len();
            self.next = if is_last {
                (0, seed + 1)
            } else {
                (history + 1, seed)
            };
            if self.stories[history].len() < ENOUGH {
                return Some((history, seed));
            }
        }
        None
    }
}

/// Runs all histories on all cores: for `TSDP_MINUTES` (1), or for `TSDP_SEEDS` seeds each.
pub fn run_all(all: &[History]) {
    let (first, seeds) = (first_seed(), number("TSDP_SEEDS"));
    let time = Duration::from_secs(number("TSDP_MINUTES").unwrap_or(1) * 60);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("TSDP_THREADS")
        .and_then(|it| usize::try_from(it).ok())
        .unwrap_or(cores);
    let begin = Instant::now();
    let queue = Mutex::new(Queue {
        all,
        next: (0, 0),
        tallies: vec![Tally::default(); all.len()],
        stories: vec![Vec::new(); all.len()],
    });
    let is_over = |done: u64| seeds.map_or(begin.elapsed() >= time, |seeds| done >= seeds);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().take();
                    let Some((history, number)) = next.filter(|(_, number)| !is_over(*number))
                    else {
                        return;
                    };
                    let (of, seed) = (&all[history], first + number);
                    let begin = Instant::now();
                    let result = shrink::run(of, seed);
                    let time = begin.elapsed();
                    let story = result.as_ref().err().map(|failed| of.story(seed, failed));
                    if let Some(story) = &story {
                        print_line(story);
                    }
                    let mut queue = queue.lock().unwrap();
                    queue.tallies[history].note(result.unwrap_or_default(), time);
                    queue.stories[history].extend(story);
                }
            });
        }
    });
    let queue = queue.into_inner().unwrap();
    let mut sum = Tally::default();
    for (history, tally) in all.iter().zip(&queue.tallies) {
        print_line(&format!("{:>12}: {}", history.name, tally.words()));
        sum.histories += tally.histories;
        sum.steps += tally.steps;
    }
    sum.time = begin.elapsed();
    print_line(&format!(
        "{:>12}: {} on {threads} threads, from seed {first} on",
        "all",
        sum.words()
    ));
    let failed = queue.stories.iter().flatten().count();
    assert!(
        failed == 0,
        "{failed} histories fail; their stories are above"
    );
}
