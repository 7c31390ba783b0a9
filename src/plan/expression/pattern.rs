//! Patterns of `matches`: bounded before they are compiled, compiled when a device is first matched.
//!
//! Anyone who can write a policy chooses the pattern. So its size is computed from its syntax tree, which
//! is as small as its text, and nothing is compiled for a policy that is never evaluated. The engine is one
//! that has neither tables that grow with use nor a step that is not counted: it visits each letter of the
//! text once with at most every position of the pattern.

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

/// Letters of a pattern with its repetitions written out.
pub(super) const MAX_LETTERS: usize = 256;
/// Byte sequences that the classes of a pattern stand for: a digit of any script takes 242.
pub(super) const MAX_SEQUENCES: usize = 2500;
const NESTING: u32 = 16;
/// Memory of one compiled pattern. The other bounds keep below it; it holds should they not.
pub(super) const MAX_BYTES: usize = 48 << 10;

/// What a pattern costs once it is compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// The positions that each letter of a text is compared with at most.
    pub letters: usize,
    /// The byte sequences to keep.
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

    /// What is too large about it, and what to write instead.
    pub fn excess(self, of: &str) -> Option<String> {
        let Self { letters, sequences } = self;
        if letters > MAX_LETTERS {
            return Some(format!(
                "{of} too large: {letters} letters with repetitions written out, of at most {MAX_LETTERS}; \
                 write fewer or smaller repetitions, such as a+ or size(…) beside it"
            ));
        }
        (sequences > MAX_SEQUENCES).then(|| {
            format!(
                "{of} too large: its classes have {sequences} parts, of at most {MAX_SEQUENCES}; write \
                 [0-9] instead of \\d and [a-zA-Z0-9_] instead of \\w, which have the letters of all scripts"
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
                // Each repetition but the required ones is a choice of its own.
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

/// What all the expressions with the same pattern have together.
struct Shared {
    text: String,
    compiled: OnceLock<Option<PikeVM>>,
}

/// The patterns that live, by their text.
static PATTERNS: Mutex<BTreeMap<String, Weak<Shared>>> = Mutex::new(BTreeMap::new());

fn patterns() -> MutexGuard<'static, BTreeMap<String, Weak<Shared>>> {
    PATTERNS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pattern {
    /// Reads a pattern; its errors in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let hir = hir(text).map_err(|error| {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            let last = last.trim_start_matches("error: ");
            format!("this is no regular expression: {last}")
        })?;
        let size = Size::of(&hir);
        match size.excess("the pattern is") {
            Some(excess) => Err(excess),
            None => Ok(Self {
                size,
                shared: Shared::of(text),
            }),
        }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// The steps that it takes at most to match a text.
    pub fn steps(&self, text: &str) -> usize {
        (text.len() + 1).saturating_mul(self.size.letters + 2)
    }

    /// Whether it matches; `None` where it cannot be compiled after all.
    pub fn matches(&self, text: &str) -> Option<bool> {
        let compiled = self
            .shared
            .compiled
            .get_or_init(|| compile(&self.shared.text));
        let compiled = compiled.as_ref()?;
        Some(compiled.is_match(&mut compiled.create_cache(), text))
    }

    #[cfg(test)]
    pub fn compiled_bytes(&self) -> Option<usize> {
        let compiled = self.shared.compiled.get()?.as_ref()?;
        Some(compiled.get_nfa().memory_usage())
    }
}

fn hir(text: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    let mut parser = ParserBuilder::new().nest_limit(NESTING).build();
    parser.parse(text).map_err(Box::new)
}

fn compile(text: &str) -> Option<PikeVM> {
    let config = NFA::config()
        .nfa_size_limit(Some(MAX_BYTES))
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

/// With the last policy that has it, a pattern is gone.
impl Drop for Shared {
    fn drop(&mut self) {
        let mut patterns = patterns();
        // Another one of the same text may have come meanwhile.
        if patterns
            .get(&self.text)
            .is_some_and(|it| it.strong_count() == 0)
        {
            patterns.remove(&self.text);
        }
    }
}
