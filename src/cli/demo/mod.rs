//! `tsdp demo`: the engine and the client of the controller against the simulator.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod examples;
mod kubernetes;
mod terminal;

use std::{sync::Arc, time::Duration};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{output::Color, plan::PlanRun, process::AnyError, prune_from::PruneFrom};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{Admission, Guardrails, PolicyInput},
    simulator::Simulator,
    tailnet::{Engine, Input, Message, Settings, Term, drive},
    tailscale::{self, Budget, Client, Credential},
};
use terminal::Terminal;

/// The options of the demo.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tsdp demo               plan, apply and repair against a simulated tailnet, then exit
  tsdp demo --kubernetes  the same in a real kube-apiserver, to continue in with kubectl")]
pub(super) struct DemoArgs {
    /// Run the controller against a real kube-apiserver on this machine, until Ctrl-C. The first run builds
    /// the API server, which needs Go and takes some minutes, unless KUBEBUILDER_ASSETS names a folder
    /// with it.
    #[arg(long)]
    kubernetes: bool,
}

/// The demo's poll interval. The default in a cluster is a minute.
const POLL: Duration = Duration::from_secs(1);

/// Runs the demo.
pub(super) async fn run(args: DemoArgs) -> Result<(), AnyError> {
    if args.kubernetes {
        return kubernetes::run().await;
    }
    let simulator = Simulator::start(examples::tailnet()?).await?;
    let policies = examples::policies()?;
    println!(
        "A simulated tailnet of {} devices at {}, and the {} policies of deploy/examples.\n",
        simulator.devices()?.len(),
        simulator.url(),
        policies.len(),
    );
    let client = client(&simulator)?;
    println!("The plan (nothing has been sent yet):\n");
    // Before the engine starts: the demo shows what it is about to do.
    let (text, differences) = plan(&client, &policies).await?;
    println!("{text}");

    println!("Applying it with the engine of the controller:\n");
    // The requests of the plan are not those of the engine.
    simulator.clear_requests();
    let stop = CancellationToken::new();
    let terminal = Arc::new(Terminal::default());
    let (mailbox, received) = mpsc::unbounded_channel();
    let engine = Engine::new(settings(), fastrand::u64(..));
    let driven = tokio::spawn(drive(engine, received, Arc::clone(&terminal), stop.clone()));
    let names: Vec<_> = policies.iter().map(|policy| policy.key.clone()).collect();
    send_inputs(&mailbox, policies, client)?;
    terminal.changed_since(0, differences).await;
    terminal.all_in_sync(&names).await;
    println!(
        "\n{} changes, {} requests. Everything is in sync.\n",
        terminal.changes(),
        writes(&simulator),
    );

    println!(
        "Now someone removes tag:fra from fra-router and approves a route, in the admin console:\n"
    );
    simulator.clear_requests();
    let before = terminal.changes();
    drift(&simulator)?;
    // First the changes: until the next poll, all policies are still reported in sync.
    terminal.changed_since(before, 2).await;
    terminal.all_in_sync(&names).await;
    println!(
        "\n{} requests. The controller repaired the drift at the next poll.\n",
        writes(&simulator)
    );
    stop.cancel();
    driven.await?;
    println!(
        "Next: tsdp demo --kubernetes runs the same in a real API server, for use with kubectl."
    );
    Ok(())
}

/// The policies, the leadership, and the connection, as the controller sends them to its engine.
fn send_inputs(
    mailbox: &mpsc::UnboundedSender<Message>,
    policies: Vec<PolicyInput>,
    client: Client,
) -> Result<(), AnyError> {
    let policies = policies.into_iter();
    let inputs = policies.map(|policy| Input::Policy(Box::new(policy)));
    // The policies first, as nothing is decided before all of them are known.
    for input in inputs.chain([Input::PoliciesListed, Input::Term(Some(Term::FIRST))]) {
        mailbox.send(Message::Input(input))?;
    }
    mailbox.send(Message::Connection {
        settings: None,
        client: Ok(client),
    })?;
    Ok(())
}

/// Changes a router as someone in the admin console would.
fn drift(simulator: &Simulator) -> Result<(), AnyError> {
    simulator.patch_device(
        &router(simulator)?,
        &json!({
            "tags": ["tag:router"],
            "enabledRoutes": ["0.0.0.0/0", "10.0.0.0/16", "192.168.66.0/24", "::/0", "fd7a:10::/48"],
        }),
    )?;
    Ok(())
}

fn client(simulator: &Simulator) -> Result<Client, AnyError> {
    let settings = tailscale::Settings {
        // The simulator has no rate limit, and a demo should not keep its audience waiting.
        budget: Budget::new(100.0, 100)?,
        ..tailscale::Settings::new(simulator.url().parse()?, "-")
    };
    Ok(Client::new(
        settings,
        Credential::ApiKey(SecretString::from(examples::API_KEY)),
    )?)
}

fn settings() -> Settings {
    Settings {
        poll_interval: POLL,
        attributes_interval: Duration::from_mins(10),
        requests_per_second: 100.0,
        // The demo changes most of its few devices at once.
        limit: ChangeLimit::NONE,
        guardrails: Guardrails::default(),
    }
}

/// Reads the tailnet, and returns the plan for people, with the number of its changes.
async fn plan(client: &Client, policies: &[PolicyInput]) -> Result<(String, usize), AnyError> {
    let plan_run = PlanRun::make(
        client,
        policies.to_vec(),
        Admission::default(),
        &PruneFrom::default(),
        ChangeLimit::NONE,
    )
    .await?;
    let view = plan_run.view();
    Ok((view.text(Color::Auto, false), view.changes.len()))
}

fn router(simulator: &Simulator) -> Result<String, AnyError> {
    let devices = simulator.devices()?;
    let router = devices
        .iter()
        .find(|device| device["hostname"] == "fra-router");
    let id = router
        .and_then(|device| device["nodeId"].as_str())
        .ok_or("the demo has no router")?;
    Ok(id.parse::<NodeId>()?.to_string())
}

/// The number of writes since the log was cleared.
fn writes(simulator: &Simulator) -> usize {
    simulator
        .requests()
        .iter()
        .filter(|request| request.method != "GET")
        .count()
}
