//! Patterns of `matches`: bounded before they are compiled, and compiled when they are first matched.
//!
//! Anyone who can write a policy chooses the pattern. So its size is computed from its syntax tree, which is
//! as small as its text, and a policy that is never evaluated costs no compilation. The engine has no tables
//! that grow with use, and all of its steps are counted: it compares each letter of the string once with at
//! most every position of the pattern.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use regex_automata::nfa::thompson::{NFA, WhichCaptures, pikevm::PikeVM};
use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind},
    utf8::Utf8Sequences,
};

use crate::model::Refused;

/// The most letters of a pattern, with its repetitions written out.
pub(super) const MAX_LETTERS: usize = 256;
/// The most byte sequences of a pattern's character classes: a digit of any script takes 242.
pub(super) const MAX_SEQUENCES: usize = 2500;
/// How deep groups and repetitions may be nested. It bounds the stack of parsing a pattern.
const MAX_NESTING: u32 = 16;
/// The most memory of one compiled pattern. The other bounds already ensure it; this is a second safeguard.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// The cost of a compiled pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// The most positions that each letter of a string is compared with.
    pub letters: usize,
    /// The byte sequences that it stores.
    pub sequences: usize,
}

impl Size {
    const ONE: Self = Self {
        letters: 1,
        sequences: 1,
    };

    pub fn plus(self, other: Self) -> Self {
        Self {
            letters: self.letters.saturating_add(other.letters),
            sequences: self.sequences.saturating_add(other.sequences),
        }
    }

    fn times(self, count: usize) -> Self {
        Self {
            letters: self.letters.saturating_mul(count),
            sequences: self.sequences.saturating_mul(count),
        }
    }

    /// Why it is too large, and what to write instead.
    pub fn excess(self, of: &str) -> Option<String> {
        let Self { letters, sequences } = self;
        if letters > MAX_LETTERS {
            return Some(format!(
                "{of} too large: found {letters} letters with repetitions written out, expected at most \
                {MAX_LETTERS}. Write fewer or smaller repetitions, such as a+, or test size(…) too"
            ));
        }
        (sequences > MAX_SEQUENCES).then(|| {
            format!(
                "{of} too large: found {sequences} parts of classes, expected at most {MAX_SEQUENCES}. \
                Write [0-9] instead of \\d and [a-zA-Z0-9_] instead of \\w, which match all scripts"
            )
        })
    }

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::ONE,
            HirKind::Literal(literal) => Self::ONE.times(literal.0.len()),
            HirKind::Class(class) => Self {
                letters: 1,
                sequences: sequences(class),
            },
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) => {
                let (min, max) = (repetition.min, repetition.max);
                let count = usize::try_from(max.unwrap_or(min)).unwrap_or(usize::MAX);
                // Each optional repetition is a choice of its own.
                Self::of(&repetition.sub)
                    .times(count.max(1))
                    .plus(Self::ONE)
            }
            HirKind::Concat(parts) => parts.iter().map(Self::of).fold(Self::default(), Self::plus),
            HirKind::Alternation(parts) => parts.iter().map(Self::of).fold(Self::ONE, Self::plus),
        }
    }
}

fn sequences(class: &Class) -> usize {
    match class {
        Class::Bytes(bytes) => bytes.ranges().len(),
        Class::Unicode(letters) => {
            let ranges = letters.ranges().iter();
            let sequences = ranges.map(|range| {
                let sequences = Utf8Sequences::new(range.start(), range.end());
                sequences.map(|sequence| sequence.len()).sum::<usize>()
            });
            sequences.sum()
        }
    }
}

/// A pattern within the bounds.
pub(super) struct Pattern {
    size: Size,
    shared: Arc<Shared>,
}

/// The part that all expressions with the same pattern share.
struct Shared {
    text: String,
    compiled: OnceLock<Option<PikeVM>>,
}

/// The patterns in use, by their text.
// Weak, so that a pattern goes with the last expression that has it.
static PATTERNS: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

fn patterns() -> MutexGuard<'static, BTreeMap<String, Weak<Shared>>> {
    // A panic elsewhere leaves the map valid: each change of it is a single call.
    PATTERNS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pattern {
    /// Parses a pattern. The error is a single line.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let hir = hir(text).map_err(|error| {
            // The lines before the last one draw the pattern, which a condition cannot show.
            let drawing = error.to_string();
            let last = drawing.lines().last().unwrap_or_default();
            Refused(format!(
                "invalid regular expression: {}",
                last.trim_start_matches("error: ")
            ))
        })?;
        let size = Size::of(&hir);
        match size.excess("the pattern is") {
            Some(excess) => Err(Refused(excess)),
            None => Ok(Self {
                size,
                shared: Shared::of(text),
            }),
        }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// The most steps to match a string.
    pub fn steps(&self, text: &str) -> usize {
        (text.len() + 1).saturating_mul(self.size.letters + 2)
    }

    /// Whether it matches; `None` if it cannot be compiled after all.
    pub fn matches(&self, text: &str) -> Option<bool> {
        let compiled = self
            .shared
            .compiled
            .get_or_init(|| compile(&self.shared.text))
            .as_ref()?;
        Some(compiled.is_match(&mut compiled.create_cache(), text))
    }

    #[cfg(test)]
    pub fn compiled_bytes(&self) -> Option<usize> {
        let compiled = self.shared.compiled.get()?.as_ref()?;
        Some(compiled.get_nfa().memory_usage())
    }
}

fn hir(text: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    let mut parser = ParserBuilder::new().nest_limit(MAX_NESTING).build();
    parser.parse(text).map_err(Box::new)
}

fn compile(text: &str) -> Option<PikeVM> {
    let config = NFA::config()
        .nfa_size_limit(Some(MAX_BYTES))
        // Only whether a string matches is asked: captures would take memory for nothing.
        .which_captures(WhichCaptures::None);
    let nfa = NFA::compiler()
        .configure(config)
        .build_from_hir(&hir(text).ok()?);
    PikeVM::new_from_nfa(nfa.ok()?).ok()
}

impl Shared {
    fn of(text: &str) -> Arc<Self> {
        let mut patterns = patterns();
        if let Some(shared) = patterns.get(text).and_then(Weak::upgrade) {
            return shared;
        }
        let shared = Arc::new(Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
        });
        patterns.insert(text.to_owned(), Arc::downgrade(&shared));
        shared
    }
}

/// The last expression with a pattern removes it.
impl Drop for Shared {
    fn drop(&mut self) {
        let mut patterns = patterns();
        // Another thread may have added a pattern of the same text since the count reached zero.
        if patterns
            .get(&self.text)
            .is_some_and(|it| it.strong_count() == 0)
        {
            patterns.remove(&self.text);
        }
    }
}
