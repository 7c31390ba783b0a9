//! Makes a failing history as short and simple as it can be while it still fails in the same place.

use std::{
    cell::{Cell, RefCell},
    fmt,
    panic::{PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::Once,
    time::{Duration, Instant},
};

use super::{
    choices::{self, Simpler},
    run::History,
    story,
};

/// How long a history is shrunk.
const PATIENCE: Duration = Duration::from_secs(40);
/// So many lines are told before the failure.
const LINES: usize = 400;

/// Where and how a history failed.
#[derive(Debug, Clone, Default)]
pub struct Failed {
    place: String,
    message: String,
    /// The number of choices in each step.
    made: Vec<u32>,
}

thread_local! {
    /// Failures are caught, not printed.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Failed> = RefCell::default();
}

/// Lets this thread's failures be caught with their places. Those of other tests are printed as ever.
fn catch_failures() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |info| {
            if CATCHES.get() {
                note(info);
            } else {
                print(info);
            }
        }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    CAUGHT.set(Failed {
        place: info.location().map(ToString::to_string).unwrap_or_default(),
        message: info.payload_as_str().unwrap_or_default().to_owned(),
        made: Vec::new(),
    });
}

/// Runs a history as its seed says.
pub fn run(history: &History, seed: u64) -> Result<u64, Failed> {
    attempt(history, seed, &Simpler::default())
}

fn attempt(history: &History, seed: u64, simpler: &Simpler) -> Result<u64, Failed> {
    catch_failures();
    choices::simplify(simpler.clone());
    let run = history.run;
    CATCHES.set(true);
    let result = catch_unwind(|| run(seed));
    CATCHES.set(false);
    result.map_err(|_| Failed {
        made: choices::made(),
        ..CAUGHT.take()
    })
}

/// The shortest history that fails in the same place, as a story.
pub fn story(history: &History, seed: u64, failed: &Failed) -> String {
    let mut shrinking = Shrinking {
        history,
        seed,
        until: Instant::now() + PATIENCE,
        simpler: Simpler::default(),
        failed: failed.clone(),
    };
    while shrinking.make_simpler() {}
    story::listen();
    let last = attempt(history, seed, &shrinking.simpler);
    let lines = story::told();
    choices::simplify(Simpler::default());
    let message = last
        .err()
        .map(|failed| format!("{}: {}", failed.place, failed.message));
    let left_out = lines.len().saturating_sub(LINES);
    let before = (left_out > 0).then(|| format!("({left_out} earlier lines)"));
    let lines = before
        .into_iter()
        .chain(lines.into_iter().skip(left_out))
        .chain(message);
    lines.collect::<Vec<_>>().join("\n")
}

struct Shrinking<'a> {
    history: &'a History,
    seed: u64,
    until: Instant,
    simpler: Simpler,
    failed: Failed,
}

impl Shrinking<'_> {
    /// Tries everything once. Returns whether anything became simpler.
    fn make_simpler(&mut self) -> bool {
        let with_fewer_steps = self.leave_out_steps();
        let calmer = self.calm_steps();
        let simpler = self.choose_first();
        with_fewer_steps || calmer || simpler
    }

    fn try_with(&mut self, change: impl FnOnce(&mut Simpler)) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        let mut simpler = self.simpler.clone();
        change(&mut simpler);
        match attempt(self.history, self.seed, &simpler) {
            Err(failed) if failed.place == self.failed.place => {
                (self.simpler, self.failed) = (simpler, failed);
                true
            }
            _ => false,
        }
    }

    /// The steps that are not left out.
    fn steps(&self) -> Vec<u32> {
        let all = 1..u32::try_from(self.failed.made.len()).unwrap();
        all.filter(|step| !self.simpler.without.contains(step))
            .collect()
    }

    /// Leaves out half of the steps at a time, then a quarter, and so on.
    fn leave_out_steps(&mut self) -> bool {
        let mut changed = false;
        let mut size = self.steps().len().div_ceil(2);
        while size > 0 {
            for chunk in self.steps().chunks(size) {
                changed |= self.try_with(|simpler| simpler.without.extend(chunk));
            }
            size /= 2;
        }
        changed
    }

    /// Lets steps pass without latencies and faults: all, or else one after another.
    fn calm_steps(&mut self) -> bool {
        let steps = [0].into_iter().chain(self.steps());
        let noisy: Vec<u32> = steps.filter(|it| !self.simpler.calm.contains(it)).collect();
        if noisy.is_empty() {
            return false;
        }
        if self.try_with(|simpler| simpler.calm.extend(&noisy)) {
            return true;
        }
        let mut changed = false;
        for step in noisy {
            changed |= self.try_with(|simpler| simpler.calm.extend([step]));
        }
        changed
    }

    /// Replaces choices by the simplest ones.
    fn choose_first(&mut self) -> bool {
        let mut changed = false;
        for step in [0].into_iter().chain(self.steps()) {
            let made = self
                .failed
                .made
                .get(step as usize)
                .copied()
                .unwrap_or_default();
            let open = (0..made).map(|number| (step, number));
            let open: Vec<_> = open.filter(|it| !self.simpler.first.contains(it)).collect();
            for choice in open {
                changed |= self.try_with(|simpler| simpler.first.extend([choice]));
            }
        }
        changed
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

mod tests {
    use super::*;

    /// Fails with the second number from 5 on, of many.
    fn fails(seed: u64) -> u64 {
        let mut choices = choices::Choices::of_seed(seed);
        let mut large = 0;
        for step in 0..40 {
            if choices.begin_step() {
                let (number, named) = (choices.u8(..10), choices.bool());
                story::tell(Duration::from_secs(step), || format!("{number} {named}"));
                large += u64::from(number >= 5);
                assert!(large < 2, "two large numbers");
            }
        }
        large
    }

    #[test]
    fn only_the_steps_and_choices_are_told_that_make_a_history_fail() {
        let history = History {
            name: "numbers",
            run: fails,
            share: Duration::ZERO,
        };
        let failed = run(&history, 7).unwrap_err();
        let story = story(&history, 7, &failed);
        let lines: Vec<&str> = story.lines().collect();
        let [.., first, second, failure] = lines[..] else {
            panic!("{story}");
        };
        assert_eq!(lines.len(), 3, "{story}");
        assert!(
            first.ends_with(" false") && second.ends_with(" false"),
            "{story}"
        );
        assert!(failure.ends_with("two large numbers"), "{story}");
    }
}
