//! Workload identity: tokens of the controller's own service account.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client as Cluster, api::PostParams};
use secrecy::SecretString;

use crate::tailscale::{IdentitySource, NoIdentity};

/// The controller's own service account, as the subject of tokens for one audience.
pub(in crate::controller) struct OwnAccount {
    accounts: Api<ServiceAccount>,
    namespace: String,
    name: String,
    audience: String,
}

/// The shortest lifetime that Kubernetes gives a token; the controller exchanges it at once.
const LIFE_SECONDS: i64 = 600;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl OwnAccount {
    pub fn new(cluster: Cluster, namespace: &str, name: &str, audience: String) -> Self {
        Self {
            accounts: Api::namespaced(cluster, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            audience,
        }
    }

    async fn request(&self) -> Result<SecretString, NoIdentity> {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                // For Tailscale alone: the API server refuses a token of another audience.
                audiences: vec![self.audience.clone()],
                expiration_seconds: Some(LIFE_SECONDS),
                // Binding it to the pod would gain nothing: the token is exchanged at once.
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let asked = self
            .accounts
            .create_token_request(&self.name, &params, &request);
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error| self.refused(&error))?,
            Err(_) => return Err(self.none("the API server does not answer")),
        };
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        Ok(SecretString::from(token))
    }

    fn refused(&self, error: &kube::Error) -> NoIdentity {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => self.none(&format!(
                "{}. Its Role must allow `create` of serviceaccounts/token: kubectl apply -k deploy",
                status.message
            )),
            kube::Error::Api(status) if status.is_not_found() => {
                self.none("it does not exist. Correct --service-account or POD_SERVICE_ACCOUNT")
            }
            other => self.none(&other.to_string()),
        }
    }

    fn none(&self, why: &str) -> NoIdentity {
        NoIdentity(format!(
            "Kubernetes issues no token for the service account {}/{}: {why}",
            self.namespace, self.name
        ))
    }
}

impl IdentitySource for OwnAccount {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoIdentity>> {
        self.request().boxed()
    }
}

impl std::fmt::Debug for OwnAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnAccount")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
