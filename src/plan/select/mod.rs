//! Whether a selector matches a device.

mod expression;
mod selector;
mod unmatched;

pub use expression::{Expression, ExpressionError};
pub use selector::{Glob, Selector};
pub use unmatched::Unmatched;
