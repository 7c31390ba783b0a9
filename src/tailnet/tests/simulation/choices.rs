//! The random choices of a history, each of which can be made simpler.
//!
//! A history is a number of steps, and each step has random numbers of its own. So a step can be left out and
//! all others choose as before. Within a step, a choice can be replaced by the simplest one, which is always
//! the first of its range: `false`, zero, no fault, no delay. See `histories/shrink.rs`.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ops::{Bound, RangeBounds},
    rc::Rc,
};

/// What is simpler in this run than its seed says.
#[derive(Debug, Clone, Default)]
pub struct Simpler {
    /// Steps that are left out.
    pub without: BTreeSet<u32>,
    /// Steps in which everything takes no time and nothing fails.
    pub calm: BTreeSet<u32>,
    /// Choices, by step and number, that are the first of their range.
    pub first: BTreeSet<(u32, u32)>,
}

thread_local! {
    static SIMPLER: RefCell<Rc<Simpler>> = RefCell::default();
    /// The number of choices in each step of the last run.
    static MADE: RefCell<Vec<u32>> = RefCell::default();
}

/// Simplifies the histories that this thread begins from now on.
pub fn simplify(simpler: Simpler) {
    SIMPLER.set(Rc::new(simpler));
    MADE.take();
}

/// The number of choices in each step since the last call of [`simplify`].
pub fn made() -> Vec<u32> {
    MADE.with_borrow(Clone::clone)
}

/// The random choices of one history.
#[derive(Debug)]
pub struct Choices {
    seed: u64,
    step: u32,
    /// The number of choices in this step.
    made: u32,
    rng: fastrand::Rng,
    /// Latencies and faults of single requests. There are so many that each is not worth a choice.
    noise: fastrand::Rng,
    simpler: Rc<Simpler>,
}

impl Choices {
    pub fn of_seed(seed: u64) -> Self {
        let mut choices = Self {
            seed,
            step: 0,
            made: 0,
            rng: fastrand::Rng::new(),
            noise: fastrand::Rng::new(),
            simpler: SIMPLER.with_borrow(Rc::clone),
        };
        choices.restart();
        choices
    }

    /// Begins the next step. `false`: it is left out.
    pub fn begin_step(&mut self) -> bool {
        self.note_made();
        self.step += 1;
        self.restart();
        !self.simpler.without.contains(&self.step)
    }

    fn restart(&mut self) {
        self.made = 0;
        let of_step = self.seed ^ u64::from(self.step).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.rng = fastrand::Rng::with_seed(of_step);
        self.noise = self.rng.fork();
    }

    fn note_made(&self) {
        MADE.with_borrow_mut(|made| {
            let step = self.step as usize;
            if made.len() <= step {
                made.resize(step + 1, 0);
            }
            made[step] = made[step].max(self.made);
        });
    }

    fn draw(&mut self) -> u64 {
        let choice = (self.step, self.made);
        self.made += 1;
        let drawn = self.rng.u64(..);
        if self.simpler.first.contains(&choice) {
            0
        } else {
            drawn
        }
    }

    /// A share of a delay, or the dice for a fault. In a calm step it is zero.
    pub fn noise(&mut self) -> f64 {
        let drawn = self.noise.f64();
        if self.simpler.calm.contains(&self.step) {
            0.0
        } else {
            drawn
        }
    }

    /// A number for the jitter of an engine.
    pub fn seed(&mut self) -> u64 {
        self.noise.u64(..)
    }

    pub fn bool(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.u8(..n) == n - 1
    }

    pub fn f64(&mut self) -> f64 {
        unit(self.draw())
    }

    pub fn char(&mut self, range: std::ops::RangeInclusive<char>) -> char {
        let all: Vec<char> = range.collect();
        all[self.usize(..all.len())]
    }

    pub fn choice<T>(&mut self, all: Vec<T>) -> Option<T> {
        let at = (!all.is_empty()).then(|| self.usize(..all.len()))?;
        all.into_iter().nth(at)
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.note_made();
    }
}

/// A number from 0 to 1.
fn unit(drawn: u64) -> f64 {
    let half = u32::try_from(drawn >> 32).unwrap();
    f64::from(half) / 2_f64.powi(32)
}

macro_rules! integers {
    ($($name:ident)*) => {
        impl Choices {
            $(pub fn $name(&mut self, range: impl RangeBounds<$name>) -> $name {
                let first = match range.start_bound() {
                    Bound::Included(first) => i128::try_from(*first).unwrap(),
                    _ => i128::try_from($name::MIN).unwrap(),
                };
                let end = match range.end_bound() {
                    Bound::Excluded(end) => i128::try_from(*end).unwrap(),
                    Bound::Included(last) => i128::try_from(*last).unwrap() + 1,
                    Bound::Unbounded => i128::try_from($name::MAX).unwrap() + 1,
                };
                let span = u128::try_from(end - first).unwrap();
                let above = (u128::from(self.draw()) * span) >> 64;
                $name::try_from(first + i128::try_from(above).unwrap()).unwrap()
            })*
        }
    };
}

integers! { u8 u32 u64 usize i32 i64 }
