use super::*;
/// placeholder
pub trait Reporter {}
/// placeholder
pub fn drive() {}
