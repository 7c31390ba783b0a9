//! The codes of diagnostics: each has a section in docs/validation-codes.md.

use crate::api::RuleCode;

/// Declares the codes, with their name and meaning.
macro_rules! codes {
    ($($code:ident, $name:literal, $meaning:literal;)+) => {
        /// The kinds of diagnostics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $code,)+
            /// The object violates this rule of the resource.
            Rule(RuleCode),
        }

        impl Code {
            /// All codes.
            pub fn all() -> impl Iterator<Item = Self> {
                let rules = RuleCode::ALL.iter().copied().map(Self::Rule);
                [$(Self::$code,)+].into_iter().chain(rules)
            }

            /// The code in the output.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                    Self::Rule(code) => code.as_str(),
                }
            }

            /// Its description, as a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => $meaning,)+
                    Self::Rule(code) => code.meaning(),
                }
            }
        }
    };
}

codes! {
    Unreadable, "unreadable", "A file or folder cannot be read.";
    NotYaml, "not-yaml", "A file is something else than YAML or JSON, such as an HTML page.";
    NotRendered, "not-rendered", "A Helm template or a kustomization must be rendered first.";
    Syntax, "syntax", "A document is neither YAML nor JSON that kubectl reads.";
    DuplicateKey, "duplicate-key", "A map has a key twice.";
    NotAnObject, "not-an-object", "A document is not a Kubernetes object.";
    UnknownKind, "unknown-kind", "The kind or the version does not exist.";
    UnknownField, "unknown-field", "The field does not exist.";
    WrongType, "wrong-type", "A value has the wrong type.";
    UnknownValue, "unknown-value", "A value is none of those that the field can have.";
    MissingField, "missing-field", "A required field is missing.";
    OutOfBounds, "out-of-bounds", "A value is too long, too large or too small.";
    EmptyValue, "empty-value", "A field is empty, which counts as if it were absent.";
    InvalidMetadata, "invalid-metadata", "A name, a label or an annotation is not valid in Kubernetes.";
    IgnoredNamespace, "ignored-namespace", "A cluster-scoped object has a namespace.";
    InvalidExpression, "invalid-expression", "An expression is not valid.";
    InvalidSpec, "invalid-spec", "The controller would not accept the object.";
    DuplicateObject, "duplicate-object", "The manifests hold an object twice.";
    Conflict, "conflict", "Two policies conflict.";
    MissingTailnet, "missing-tailnet", "The tailnet of an object is not among the manifests.";
    NotAllowed, "not-allowed", "A guardrail of the tailnet denies a setting.";
    NoDevice, "no-device", "No device of the tailnet matches.";
    AmbiguousDevice, "ambiguous-device", "Several devices of the tailnet have the name.";
    UnknownTag, "unknown-tag", "Neither a device of the tailnet nor its policy file has the tag.";
}
