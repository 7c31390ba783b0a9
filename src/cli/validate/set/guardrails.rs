//! What the guards of a tailnet forbid to the policies beside it.

use crate::{
    api::{TailscaleDevicePolicy, TailscaleTailnet},
    cli::manifests::{Code, Diagnostic, FieldPath, Located, Manifests, Related, Severity},
    model::Refused,
    plan::{Admission, Forbidden, Guardrails, GuardrailsSource},
};

/// The guards of a tailnet. Where it is not among the manifests, or cannot be read, nobody has declared
/// any.
pub fn of(
    tailnet: Option<&Located<TailscaleTailnet>>,
    manifests: &Manifests,
    controller_namespace: &str,
) -> Admission {
    let guardrails = tailnet.and_then(|it| guardrails(it, controller_namespace).ok());
    Admission {
        guardrails: guardrails.unwrap_or_default(),
        namespaces: manifests.namespaces.clone(),
    }
}

/// What no rule of the resource can find in the guards themselves.
pub fn unreadable(manifests: &Manifests, controller_namespace: &str) -> Vec<Diagnostic> {
    let unreadable = manifests.tailnets.iter().filter_map(|tailnet| {
        let Refused(diagnostic) = guardrails(tailnet, controller_namespace).err()?;
        let (field, message) = diagnostic.split_once(": ").unwrap_or(("", &diagnostic));
        let field = FieldPath::parse(field);
        Some(tailnet.document.diagnostic(Code::Rule, &field, message))
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
    guards: &Admission,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Diagnostic> {
    let refused = policies.iter().filter_map(|located| {
        let policy = located.declared().policy.ok()?;
        Some((located, guards.admit(policy).err()?))
    });
    let diagnostics = refused.map(|(located, forbidden)| diagnostics(located, &forbidden, tailnet));
    diagnostics.flatten().collect()
}

fn diagnostics(
    located: &Located<TailscaleDevicePolicy>,
    forbidden: &Forbidden,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Diagnostic> {
    let severity = if forbidden.selector_errors {
        Severity::Warning
    } else {
        Severity::Error
    };
    let selector_errors = if forbidden.selector_errors {
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
    let diagnostics = forbidden.errors.iter().map(|(path, diagnostic)| {
        let message = format!(
            "{diagnostic}: give the TailscaleTailnet a rule such as {}{selector_errors}",
            forbidden.line
        );
        let field = FieldPath::parse(path);
        Diagnostic {
            severity,
            related: related.clone(),
            ..located
                .document
                .diagnostic(Code::NotAllowed, &field, message)
        }
    });
    diagnostics.collect()
}
