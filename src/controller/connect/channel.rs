//! The way of a client from its connection to the engine.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::{
    tailnet::{Failure, Message},
    tailscale::Client,
};

/// The channel from a connection to the engine of its tailnet. Once the connection is replaced,
/// nothing more of it arrives.
#[derive(Debug, Clone)]
pub(in crate::controller) struct EngineConnection {
    mailbox: mpsc::UnboundedSender<Message>,
    open: Arc<Mutex<bool>>,
}

impl EngineConnection {
    pub fn new(mailbox: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            mailbox,
            open: Arc::new(Mutex::new(true)),
        }
    }

    /// Passes the client on; `false` if the channel is closed.
    pub(super) fn hand_over(&self, client: Result<Client, Failure>) -> bool {
        // Locked until the message is sent: when `close` returns, nothing more can follow.
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let message = Message::Connection {
            settings: None,
            client,
        };
        *open && self.mailbox.send(message).is_ok()
    }

    /// The mailbox of the engine.
    pub(super) fn mailbox(&self) -> &mpsc::UnboundedSender<Message> {
        &self.mailbox
    }

    pub fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}
