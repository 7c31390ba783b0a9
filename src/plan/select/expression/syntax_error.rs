/// A syntax error, and where it is, counted in characters.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub at: usize,
    pub why: String,
}

impl SyntaxError {
    pub fn new(at: usize, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { at, why }
    }
}
