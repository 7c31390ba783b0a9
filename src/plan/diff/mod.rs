//! Where a device differs from what the owners of its fields declare.

mod causes;
mod compare;
mod desired_by;
mod device_plan;
mod finish;
mod shown;

pub use self::{causes::CauseContext, device_plan::DevicePlan};
pub(super) use self::{
    compare::compare,
    finish::finish,
    shown::{denied, impossible, locked_out, observed, protected},
};
