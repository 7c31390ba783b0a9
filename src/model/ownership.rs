use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of a list the policy owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListOwnership {
    /// The whole list.
    #[default]
    Exact,
    /// Only the entries that it declares: it only adds.
    AtLeast,
}

/// How many of a device's posture attributes the policy owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttributesOwnership {
    /// Those that it declares.
    #[default]
    Named,
    /// All except those that another policy declares.
    Exact,
}
