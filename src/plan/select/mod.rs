//! Whether a selector matches a device.

mod expression;
mod selector;

pub use expression::{Expression, ExpressionError};
pub use selector::{Glob, Selector};
