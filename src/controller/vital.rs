//! A thread of its own for the lease, health and metrics, which must not wait for reconciliation.
//!
//! Reconciliation runs on the threads of the main runtime. Even under load, this process must not
//! lose its lease, and no probe may restart it. So the lease, with a client of its own, and the
//! server for health and metrics run on a second runtime.

use std::{io, thread};

use kube::{Client, Config};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The thread; it ends when this is dropped.
pub(in crate::controller) struct Vital {
    handle: Handle,
    _ends: DropGuard,
}

impl Vital {
    pub fn start() -> io::Result<Self> {
        // One thread is enough for a request every few seconds and the probes.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone().cancelled_owned();
        let thread = thread::Builder::new().name("vital".to_owned());
        thread.spawn(move || runtime.block_on(ended))?;
        Ok(Self {
            handle,
            _ends: end.drop_guard(),
        })
    }

    /// Spawns onto this thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A client whose connections live on this thread.
    pub fn client(&self, config: Config) -> kube::Result<Client> {
        // kube spawns the worker of a client onto the runtime that is entered here.
        let _entered = self.handle.enter();
        Client::try_from(config)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        sync::Arc,
        time::Duration,
    };

    use super::*;
    use crate::controller::{
        serve::{health, metrics::Metrics},
        watch::readiness::Readiness,
    };

    /// Asks as a probe does, and blocks its thread until there is an answer.
    fn probe(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The runtime of this test has one thread, and the probe blocks it.
    #[tokio::test]
    async fn health_is_answered_while_the_runtime_computes() {
        let vital = Vital::start().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let (readiness, metrics) = (Arc::new(Readiness::default()), Arc::new(Metrics::default()));
        let serving = health::serve(local, readiness, metrics, CancellationToken::new());
        let address = vital.handle().spawn(serving).await.unwrap().unwrap();
        let answer = probe(address);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
