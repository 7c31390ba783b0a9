//! The Tailscale API as a stateful server: for the demo, the tests, and other clients.
//!
//! A request passes `server` (HTTP) → `service` (log and faults) → `endpoints` (routing, permission,
//! effect) → `world` (the state). Requests under `/_sim/` go to `control`.
//!
//! It is as strict as the live API is known to be, and refuses when in doubt. Unverified behavior is a
//! switch. It must not use the client's types (`crate::tailscale`, `crate::model`): a wrong field name in
//! the client would have its counterpart here, and no test would notice.

mod auth;
mod body;
mod control;
mod device;
mod endpoints;
mod fault;
mod generate;
mod identity;
mod invite;
mod journal;
mod limit;
mod load;
mod path;
mod policy;
mod response;
mod scopes;
mod server;
mod service;
mod switches;
mod world;

use std::net::{Ipv4Addr, SocketAddr};

use secrecy::SecretString;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{auth::Credentials, policy::Policy, service::Shared, world::World};
pub use self::{
    auth::OauthClient,
    fault::{FaultKind, FaultSpec},
    generate::generate,
    identity::{IssuerKeys, WorkloadIdentity},
    journal::LoggedRequest,
    load::{LoadError, read_devices},
    response::Refusal,
    scopes::Scopes,
    switches::{AttributeWriteAnswer, HostBits, RateLimit, RetryAfter, Switches},
};

/// The options of a simulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The devices, each in the shape of the list response, plus `attributes` and `expiries`. Missing
    /// fields (ids, name, addresses …) are generated.
    pub devices: Vec<Value>,
    /// The accepted API keys. If empty, every key of the form `tskey-api-…`.
    pub api_keys: Vec<SecretString>,
    /// The accepted OAuth clients. If empty, every client with a secret of the form `tskey-client-…`.
    pub oauth_clients: Vec<OauthClient>,
    /// The federated identities whose tokens are exchanged. If empty, there are none.
    pub workload_identities: Vec<WorkloadIdentity>,
    /// The keys of their token issuer. `None`: signatures are not checked.
    pub issuer_keys: Option<IssuerKeys>,
    /// The policy file, `HuJSON`. `None`: one that owns the tags of `devices`.
    pub policy_file: Option<String>,
    /// The tailnet's name in paths, beside `-`.
    pub tailnet: String,
    /// The initial switches.
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Only this machine: the simulator accepts any key by default.
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            devices: Vec::new(),
            api_keys: Vec::new(),
            oauth_clients: Vec::new(),
            workload_identities: Vec::new(),
            issuer_keys: None,
            policy_file: None,
            tailnet: "example.com".into(),
            switches: Switches::default(),
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not available.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A device of [`Options::devices`] does not have the shape of the list response.
    #[error("device {number} of the list cannot be read: {reason}")]
    Device {
        /// Its position in the list, from 1.
        number: usize,
        /// The error.
        reason: String,
    },
    /// The policy file is not valid.
    #[error("the policy file cannot be read: {0}")]
    PolicyFile(String),
}

/// A running simulator. Dropping it ends it.
pub struct Simulator {
    address: SocketAddr,
    shared: Shared,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Simulator {
    /// Starts a simulator on the current tokio runtime. It answers as soon as this returns.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let world = world_of(&options)?;
        let refused = |source| StartError::Listen {
            address: options.listen,
            source,
        };
        // Bound before the task starts: connections wait in its queue, so that nobody needs to
        // poll.
        let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let shared = Shared::new(world);
        let stop = CancellationToken::new();
        let task = tokio::spawn(server::run(listener, shared.clone(), stop.clone()));
        Ok(Self {
            address,
            shared,
            stop: stop.drop_guard(),
            task,
        })
    }

    /// Its address: `http://127.0.0.1:41234`. The API is under `/api/v2/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it, with all its connections, and waits until its port is free.
    pub async fn stop(self) {
        drop(self.stop);
        // The task fails only by a panic, which was reported when it happened.
        let _ = self.task.await;
    }

    /// All devices in the shape of the list response, plus `attributes` and `expiries`.
    pub fn devices(&self) -> Result<Vec<Value>, Refusal> {
        control::devices(&mut self.shared.lock())
    }

    /// One device, by either id.
    pub fn device(&self, id: &str) -> Result<Value, Refusal> {
        control::device(&mut self.shared.lock(), id)
    }

    /// Adds a device in the shape of the list response, and returns its present state.
    pub fn add_device(&self, device: Value) -> Result<Value, Refusal> {
        control::add(&mut self.shared.lock(), device)
    }

    /// Changes a device outside of the API, by a JSON merge patch.
    pub fn patch_device(&self, id: &str, patch: &Value) -> Result<Value, Refusal> {
        self.shared.lock().drift(id, patch)
    }

    /// Removes a device.
    pub fn remove_device(&self, id: &str) -> Result<(), Refusal> {
        self.shared.lock().remove(id)
    }

    /// The requests to the API since the start, or since the log was last cleared.
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.lock().journal.entries().cloned().collect()
    }

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.shared.lock().journal.clear();
    }

    /// Injects a fault.
    pub fn inject(&self, fault: FaultSpec) -> Result<(), Refusal> {
        control::inject(&mut self.shared.lock(), fault).map(drop)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Changes switches.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.shared.lock().switches);
    }

    /// Revokes all OAuth access tokens that were issued.
    pub fn revoke_tokens(&self) {
        self.shared.lock().credentials.revoke_tokens();
    }
}

fn world_of(options: &Options) -> Result<World, StartError> {
    let credentials = Credentials::new(
        options.api_keys.clone(),
        options.oauth_clients.clone(),
        options.workload_identities.clone(),
        options.issuer_keys.clone(),
    );
    let mut world = World::new(
        credentials,
        options.switches.clone(),
        options.tailnet.clone(),
    );
    for (at, device) in options.devices.iter().enumerate() {
        control::add(&mut world, device.clone()).map_err(|refusal| StartError::Device {
            number: at + 1,
            reason: refusal.message,
        })?;
    }
    // After the devices, whose tags the default policy owns.
    world.policy = if let Some(text) = &options.policy_file {
        Policy::parse(text).map_err(|refusal| StartError::PolicyFile(refusal.message))?
    } else {
        let devices = world.records.iter().map(|record| &record.device);
        // Tags of a shared-in device belong to another tailnet.
        let own = devices.filter(|device| !device.is_external);
        Policy::with_tags(own.flat_map(|device| &device.tags).map(String::as_str))
    };
    Ok(world)
}
