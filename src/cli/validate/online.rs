//! Compares valid manifests with the tailnet itself: devices that do not exist, selectors without a device, and tags
//! that the tailnet does not know.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use jiff::Timestamp;

use super::set;
use crate::{
    api::DeviceReference,
    cli::{
        connection::ConnectionArgs,
        manifests::{Code, Diagnostic, FieldPath, LoadedPolicy, Manifests, Severity, Text},
        no_device::{why_no_device, why_no_match},
        process::AnyError,
        snapshot::Snapshot,
    },
    model::nearest,
    plan::{self, Binding},
    tailscale::Client,
};

/// The tailnet to compare with.
#[derive(Debug, Args)]
pub(super) struct OnlineArgs {
    /// Also read the tailnet, if the manifests are valid, and warn about devices that do not exist, selectors
    /// that match nothing, and tags that neither a device nor tagOwners has. Needs a credential, as plan does.
    #[arg(long)]
    pub online: bool,
    /// With --online: compare only the policies of this TailscaleTailnet. Required if the policies refer to more
    /// than one.
    #[arg(long, value_name = "NAME", requires = "online")]
    tailnet_ref: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// All warnings. An error if the tailnet cannot be read.
pub(super) async fn check(
    manifests: &Manifests,
    args: &OnlineArgs,
    controller_namespace: &str,
    now: Timestamp,
) -> Result<Vec<Diagnostic>, AnyError> {
    let Some(tailnet) = of_one_tailnet(manifests, args.tailnet_ref.as_deref())? else {
        return Ok(Vec::new());
    };
    // The connection reaches one tailnet, so policies of others cannot be compared.
    let policies: Vec<&LoadedPolicy> = manifests
        .policies
        .iter()
        .filter(|it| it.object.spec.tailnet_name() == tailnet)
        .collect();
    let client = args.connection.client()?;
    let snapshot = Snapshot::new(&client).await?;
    let admission = set::admission(manifests, tailnet, controller_namespace);
    let inputs: Vec<_> = policies.iter().map(|it| it.input.clone()).collect();
    let nothing = BTreeMap::new();
    let tailnet_plan = plan::plan_tailnet(&inputs, &admission, &snapshot.fleet, &nothing, now);
    let without_device = policies.iter().filter_map(|located| {
        let binding = tailnet_plan.bindings.get(&located.input.key)?;
        no_device(located, binding, &snapshot)
    });
    let mut diagnostics: Vec<Diagnostic> = without_device.collect();
    diagnostics.extend(unprotected(manifests, tailnet, &admission, &snapshot));
    diagnostics.extend(unknown_tags(&policies, &snapshot, &client).await);
    Ok(diagnostics)
}

/// The policies are of several tailnets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found policies of several tailnets ({0}), expected one, as this is a connection to one tailnet. Choose its \
     policies with --tailnet-ref NAME"
)]
struct SeveralTailnets(String);

/// The tailnet of all policies, or the chosen one; `None` without a policy.
fn of_one_tailnet<'a>(
    manifests: &'a Manifests,
    wanted: Option<&'a str>,
) -> Result<Option<&'a str>, SeveralTailnets> {
    if wanted.is_some() {
        return Ok(wanted);
    }
    let policies = manifests.policies.iter();
    let mut named: BTreeSet<&str> = policies.map(|it| it.object.spec.tailnet_name()).collect();
    if named.len() > 1 {
        let several = named.into_iter().collect::<Vec<_>>().join(", ");
        return Err(SeveralTailnets(several));
    }
    Ok(named.pop_first())
}

fn no_device(located: &LoadedPolicy, binding: &Binding, snapshot: &Snapshot) -> Option<Diagnostic> {
    let policy = located.input.policy.as_ref().ok()?;
    let message = why_no_device(&policy.target, binding, &snapshot.fleet)?;
    let code = match binding {
        Binding::Ambiguous(_) => Code::AmbiguousDevice,
        _ => Code::NoDevice,
    };
    let path = match &located.object.spec.device {
        Some(device) => format!("spec.device.{}", named_by(device)),
        None => "spec.deviceSelector".to_owned(),
    };
    let diagnostic =
        located
            .document
            .diagnostic(code, &FieldPath::parse(&path), Text::question(&message));
    Some(warning(diagnostic))
}

fn named_by(device: &DeviceReference) -> &'static str {
    let names = [
        (device.node_id.is_some(), "nodeId"),
        (device.id.is_some(), "id"),
        (device.name.is_some(), "name"),
        (device.hostname.is_some(), "hostname"),
    ];
    let mut given = names.into_iter().filter(|(is_given, _)| *is_given);
    given.next().map_or("", |(_, name)| name)
}

/// Selectors of `protectedDevices` without a device: a typo there protects nothing.
fn unprotected(
    manifests: &Manifests,
    tailnet: &str,
    admission: &plan::Admission,
    snapshot: &Snapshot,
) -> Vec<Diagnostic> {
    let Some(located) = set::tailnet(manifests, tailnet) else {
        return Vec::new();
    };
    let protected = admission.guardrails.protected().enumerate();
    let empty = protected.filter(|(_, selector)| {
        let mut devices = snapshot.fleet.devices();
        // A device on which the expression fails is protected too.
        !devices.any(|device| selector.check(device).unwrap_or(true))
    });
    let diagnostics = empty.map(|(place, selector)| {
        let path = FieldPath::parse(&format!("spec.protectedDevices[{place}]"));
        let why = why_no_match(selector, &snapshot.fleet);
        let text = Text::question(&format!("protects no device{why}"));
        warning(located.document.diagnostic(Code::NoDevice, &path, text))
    });
    diagnostics.collect()
}

/// Tags that no device has, and that the policy file does not define if the credential can read it.
async fn unknown_tags(
    policies: &[&LoadedPolicy],
    snapshot: &Snapshot,
    client: &Client,
) -> Vec<Diagnostic> {
    let devices = snapshot.own();
    let used = devices.flat_map(|device| device.tags.iter().map(|tag| tag.as_str().to_owned()));
    let mut known: BTreeSet<String> = used.collect();
    let declared: Vec<(&LoadedPolicy, usize, &String)> = policies
        .iter()
        .flat_map(|located| {
            let tags = located.object.spec.tags.iter().flatten().enumerate();
            tags.map(move |(place, tag)| (*located, place, tag))
        })
        .filter(|(.., tag)| !known.contains(*tag))
        .collect();
    // Most often every tag is on a device already, and this request is not needed.
    if declared.is_empty() {
        return Vec::new();
    }
    let owners = client.tag_owners().await;
    let (where_else, hint) = match &owners {
        Ok(_) => (
            "nor is it in tagOwners of the policy file",
            "correct it, or add it to tagOwners".to_owned(),
        ),
        Err(error) => (
            "and the policy file cannot be read",
            format!("check that tagOwners has it ({error})"),
        ),
    };
    known.extend(owners.unwrap_or_default());
    let unknown = declared
        .into_iter()
        .filter(|(.., tag)| !known.contains(*tag));
    let diagnostics = unknown.map(|(located, place, tag)| {
        let near = nearest(tag, known.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!("did you mean {near}? If not, "));
        let text = Text::new(format!("no device has {tag}, {where_else}")).help(near + &hint);
        let path = FieldPath::parse(&format!("spec.tags[{place}]"));
        warning(located.document.diagnostic(Code::UnknownTag, &path, text))
    });
    diagnostics.collect()
}

fn warning(diagnostic: Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        ..diagnostic
    }
}
