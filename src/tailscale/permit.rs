//! Checks whether a request may still be sent, when its first byte goes out.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// The permission to send one request, once.
///
/// A request waits: for the budget, for an access token, for a connection. Its reasons may be gone by then,
/// so the permit is checked after all waiting, right before the request is written to a connection. Until
/// then it can be revoked; afterwards the server has the request.
#[derive(Clone)]
pub struct Permit(Arc<Inner>);

struct Inner {
    /// Checked at the last moment: for example, the end of a lease that no message has reported yet.
    holds: Box<dyn Fn() -> bool + Send + Sync>,
    phase: AtomicU8,
    revoked: CancellationToken,
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const REVOKED: u8 = 2;

impl Permit {
    /// A permit that also needs `holds` to be true at the moment of sending. `holds` must not block.
    #[must_use]
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            holds: Box::new(holds),
            phase: AtomicU8::new(WAITING),
            revoked: CancellationToken::new(),
        }))
    }

    /// Revokes it: the request is not sent, unless it has been sent already.
    pub fn revoke(&self) {
        // Once the request is sent, cancelling it would lose the answer to a change that the server may
        // have made.
        if self.leave_waiting_for(REVOKED) {
            self.0.revoked.cancel();
        }
    }

    /// Whether the request has not been sent and can still be revoked.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) == WAITING
    }

    /// Whether the request was not sent and never will be.
    pub(super) fn is_revoked(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) == REVOKED
    }

    /// Waits until it is revoked.
    pub(super) async fn revoked(&self) {
        self.0.revoked.cancelled().await;
    }

    /// Uses the permit. `false`: the request must not be sent.
    fn pass(&self) -> bool {
        // hyper asks again for each further frame of a request that has begun.
        if self.0.phase.load(Ordering::Acquire) == SENT {
            return true;
        }
        // Revoked as well, so that the failed exchange is reported as not sent and not as a broken
        // connection.
        if !(self.0.holds)() {
            self.revoke();
            return false;
        }
        // A revocation since the check above wins.
        self.leave_waiting_for(SENT)
    }

    fn leave_waiting_for(&self, phase: u8) -> bool {
        let left =
            self.0
                .phase
                .compare_exchange(WAITING, phase, Ordering::AcqRel, Ordering::Acquire);
        left.is_ok()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("waiting", &self.is_waiting())
            .finish_non_exhaustive()
    }
}

/// The body of a request that has a permit.
///
/// hyper takes the first frame when it has a connection and has flushed nothing of the request, so an error
/// there means that the server has received nothing. For an empty body it requests no frame; it then calls
/// [`Body::is_end_stream`] at the same moment, and not before. As such a body cannot be cloned, reqwest does
/// not repeat the request by itself either.
pub(super) struct PermittedBody {
    permit: Permit,
    bytes: Option<Bytes>,
}

impl PermittedBody {
    /// `None`: a request without a body.
    pub fn new(permit: Permit, bytes: Option<Vec<u8>>) -> Self {
        Self {
            permit,
            bytes: bytes.map(Bytes::from),
        }
    }
}

/// The permit was revoked before anything was sent.
#[derive(Debug, thiserror::Error)]
#[error("the request was not sent, as its reasons no longer hold")]
pub(super) struct Revoked;

impl Body for PermittedBody {
    type Data = Bytes;
    type Error = Revoked;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Revoked>>> {
        if !self.permit.pass() {
            return Poll::Ready(Some(Err(Revoked)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        // A sent body is at its end; an empty body is so once its permit is used.
        self.bytes.is_none() && self.permit.pass()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(bytes) => SizeHint::with_exact(bytes.len() as u64),
            None => SizeHint::default(),
        }
    }
}
