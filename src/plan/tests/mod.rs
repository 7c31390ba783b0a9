//! Properties of plans, with the values that they are made from.

pub(crate) mod cases;
pub(crate) mod causes;
pub(crate) mod declared;
mod devices;
mod permitted;
mod properties;
pub(crate) mod scenes;
mod tailnets;
