//! What the guards of a tailnet forbid to the policies beside it.

use crate::{
    api::{TailscaleDevicePolicy, TailscaleTailnet},
    cli::manifests::{Code, Fault, FieldPath, Located, Manifests, Related, Severity},
    model::Refused,
    plan::{Forbidden, Guardrails, GuardrailsSource, Guards},
};

/// The guards of a tailnet. Where it is not among the manifests, or cannot be read, nobody has declared
/// any.
pub fn of(
    tailnet: Option<&Located<TailscaleTailnet>>,
    manifests: &Manifests,
    controller_namespace: &str,
) -> Guards {
    let guardrails = tailnet.and_then(|it| guardrails(it, controller_namespace).ok());
    Guards {
        guardrails: guardrails.unwrap_or_default(),
        namespaces: manifests.namespaces.clone(),
    }
}

/// What no rule of the resource can find in the guards themselves.
pub fn unreadable(manifests: &Manifests, controller_namespace: &str) -> Vec<Fault> {
    let unreadable = manifests.tailnets.iter().filter_map(|tailnet| {
        let Refused(fault) = guardrails(tailnet, controller_namespace).err()?;
        let (field, message) = fault.split_once(": ").unwrap_or(("", &fault));
        let field = FieldPath::parse(field);
        Some(tailnet.document.fault(Code::Rule, &field, message))
    });
    unreadable.collect()
}

fn guardrails(
    tailnet: &Located<TailscaleTailnet>,
    own_namespace: &str,
) -> Result<Guardrails, Refused> {
    let spec = &tailnet.object.spec;
    Guardrails::try_from(GuardrailsSource {
        spec,
        own_namespace,
    })
}

/// The policies of a tailnet that it does not allow.
pub fn check(
    policies: &[&Located<TailscaleDevicePolicy>],
    guards: &Guards,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Fault> {
    let refused = policies.iter().filter_map(|located| {
        let policy = located.declared().policy.ok()?;
        Some((located, guards.admit(policy).err()?))
    });
    let faults = refused.map(|(located, forbidden)| faults(located, &forbidden, tailnet));
    faults.flatten().collect()
}

fn faults(
    located: &Located<TailscaleDevicePolicy>,
    forbidden: &Forbidden,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Fault> {
    let severity = if forbidden.unjudged {
        Severity::Warning
    } else {
        Severity::Error
    };
    let unjudged = if forbidden.unjudged {
        ", or the namespace the labels that a rule asks for (add the Namespace to the manifests to have \
         that checked)"
    } else {
        ""
    };
    let related: Vec<Related> = tailnet
        .iter()
        .map(|tailnet| Related {
            place: tailnet
                .document
                .place(&FieldPath::parse("spec.allowedPolicies")),
            message: "what is allowed".to_owned(),
        })
        .collect();
    let faults = forbidden.faults.iter().map(|(path, fault)| {
        let message = format!(
            "{fault}: give the TailscaleTailnet a rule such as {}{unjudged}",
            forbidden.line
        );
        let field = FieldPath::parse(path);
        Fault {
            severity,
            related: related.clone(),
            ..located.document.fault(Code::NotAllowed, &field, message)
        }
    });
    faults.collect()
}
