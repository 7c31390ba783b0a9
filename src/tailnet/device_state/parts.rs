//! The parts of refused batches that write to a device.

/// The parts that wait for their turn, and what is known of their batch.
#[derive(Debug, Default)]
pub(super) struct Parts {
    waiting: u32,
    /// Whether the answer to the batch was lost, so that the attributes are unknown unless each part of it is
    /// accepted.
    in_doubt: bool,
}

impl Parts {
    /// Whether a part waits for its turn.
    pub const fn wait(&self) -> bool {
        self.waiting > 0
    }

    /// Another part waits. `in_doubt`: the answer to its batch was lost.
    pub const fn add(&mut self, in_doubt: bool) {
        self.waiting += 1;
        self.in_doubt |= in_doubt;
    }

    /// A part no longer waits: it is sent or dropped.
    pub const fn remove(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Whether the answer to a batch was lost, and no read has shown its outcome since.
    pub const fn are_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// A read shows the outcome, or will.
    pub const fn settle(&mut self) {
        self.in_doubt = false;
    }
}
