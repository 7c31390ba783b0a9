//! Policies that the guardrails of their tailnet deny.

use crate::{
    api::TailscaleTailnet,
    cli::manifests::{
        Code, Diagnostic, FieldPath, LoadedPolicy, Located, Manifests, Related, Severity, Text,
    },
    convert::GuardrailsSource,
    model::Refused,
    plan::{Admission, Forbidden, Guardrails, Policy},
};

/// The guardrails of a tailnet. None if the tailnet is not among the manifests, or if its guardrails are
/// invalid, which [`unreadable`] reports.
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

/// Errors in the guardrails themselves that no CEL rule of the resource finds.
pub fn unreadable(manifests: &Manifests, controller_namespace: &str) -> Vec<Diagnostic> {
    let diagnostics = manifests.tailnets.iter().filter_map(|tailnet| {
        let Refused(error) = guardrails(tailnet, controller_namespace).err()?;
        // The error begins with the path of the field.
        let (field, message) = error.split_once(": ").unwrap_or(("", &error));
        let field = FieldPath::parse(field);
        Some(
            tailnet
                .document
                .diagnostic(Code::InvalidSpec, &field, Text::split(message)),
        )
    });
    diagnostics.collect()
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
    policies: &[&LoadedPolicy],
    admission: &Admission,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Diagnostic> {
    let refused = policies.iter().filter_map(|located| {
        let policy = Policy::clone(located.input.policy.as_deref().ok()?);
        Some((located, admission.admit(policy).err()?))
    });
    let diagnostics = refused.map(|(located, forbidden)| diagnostics(located, &forbidden, tailnet));
    diagnostics.flatten().collect()
}

fn diagnostics(
    located: &LoadedPolicy,
    forbidden: &Forbidden,
    tailnet: Option<&Located<TailscaleTailnet>>,
) -> Vec<Diagnostic> {
    // While the labels of the namespace are unknown, the policy may well be allowed.
    let severity = if forbidden.labels_unknown {
        Severity::Warning
    } else {
        Severity::Error
    };
    let namespace_hint = if forbidden.labels_unknown {
        ", or give the namespace the labels that a rule selects (add the Namespace to the manifests to \
         check that)"
    } else {
        ""
    };
    let related: Vec<Related> = tailnet
        .iter()
        .map(|tailnet| Related {
            place: tailnet
                .document
                .place(&FieldPath::parse("spec.allowedPolicies")),
            message: "the rules of the tailnet".to_owned(),
        })
        .collect();
    let diagnostics = forbidden.errors.iter().map(|(path, error)| {
        let text = Text::new(error.as_str()).help(format!(
            "give the TailscaleTailnet a rule such as {}{namespace_hint}",
            forbidden.suggested_rule
        ));
        let field = FieldPath::parse(path);
        Diagnostic {
            severity,
            related: related.clone(),
            ..located.document.diagnostic(Code::NotAllowed, &field, text)
        }
    });
    diagnostics.collect()
}
