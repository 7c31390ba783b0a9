//! What every command needs of its process.

use tokio_util::sync::CancellationToken;

/// Any error that ends a command.
pub(super) type AnyError = Box<dyn std::error::Error>;

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // The work is waiting for the network. By default tokio starts a thread for each core of
        // the node.
        .worker_threads(2)
        .enable_all()
        .build()
}

/// A token that Ctrl-C or SIGTERM cancels.
pub(super) fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};

    // Registered here, not in the task: a signal before the task runs would end the process.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}
