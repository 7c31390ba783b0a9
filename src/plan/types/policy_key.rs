use std::{fmt, ops::Deref, sync::Arc};

use serde::{Serialize, Serializer};

/// The identity of a policy: `namespace/name`. Shared, because each policy is named in many places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey(Arc<PolicyName>);

/// The namespace and the name of a policy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyKey {
    /// The key of the policy with this name.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(PolicyName {
            namespace: namespace.into(),
            name: name.into(),
        }))
    }
}

impl Deref for PolicyKey {
    type Target = PolicyName;

    fn deref(&self) -> &PolicyName {
        &self.0
    }
}

impl Serialize for PolicyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
