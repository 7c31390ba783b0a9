//! Shared by the tests: a control plane, its kubectl, waiting, and the stage for the controller.

mod cable;
mod collector;
mod controller;
mod documents;
mod generated;
mod go_tool;
mod helm;
mod kubectl;
mod prometheus;
mod source;
mod stage;
mod statuses;
mod terminal;
mod wait;

use tsdp::local::{Binaries, ControlPlane};

pub use cable::Cable;
pub use collector::{Collector, Span};
pub use controller::Controller;
pub use documents::documents;
pub use generated::{assert_generated, assert_generated_folder};
pub use go_tool::go_tool;
pub use helm::{CHART, Helm};
pub use kubectl::Kubectl;
pub use prometheus::prometheus_program;
pub use source::{SourceFile, production_files};
pub use stage::{API_KEY, POLICY_FILE, Stage, calls, demo_devices};
pub use statuses::condition;
pub use terminal::on_terminal;
pub use wait::eventually;

/// A control plane for one test, which ends with it. The first one ever is built, and reports that.
pub async fn control_plane() -> ControlPlane {
    let binaries = Binaries::find_or_build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    ControlPlane::start(&binaries)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}
