//! Random histories. Each is decided by one number, its seed.

mod actions;
mod clears;
mod guarded;
mod leaders;
mod owned_keys;
mod random;
mod releases;
mod seeds;
mod short_lists;

use super::simulation::{
    Broken, CLEAR_TIMEOUT, Kept, World, builders, lost, model, recorded, settings,
};
