//! Parses the Secret of a tailnet.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use secrecy::SecretString;

/// The data of a Secret.
pub(in crate::controller) type Data = BTreeMap<String, ByteString>;

/// How the controller authenticates to the API.
#[derive(Debug)]
pub(in crate::controller) enum Login {
    ApiKey(SecretString),
    OAuth {
        client_id: String,
        client_secret: SecretString,
    },
    /// With tokens of the controller's own service account for this audience.
    WorkloadIdentity {
        client_id: String,
        audience: String,
    },
}

/// The three ways to write a credential. The keys are those of Tailscale's own operator, so that
/// one Secret serves both. An error continues the sentence "The Secret … ".
pub(in crate::controller) fn login(data: &Data) -> Result<Login, &'static str> {
    let [api_key, client_id, client_secret, audience] =
        ["api_key", "client_id", "client_secret", "audience"].map(|key| text(data, key));
    match (api_key?, client_id?, client_secret?, audience?) {
        (Some(key), None, None, None) => Ok(Login::ApiKey(SecretString::from(key))),
        (None, Some(client_id), Some(secret), None) => Ok(Login::OAuth {
            client_id,
            client_secret: SecretString::from(secret),
        }),
        (None, Some(client_id), None, Some(audience)) => Ok(Login::WorkloadIdentity {
            client_id,
            audience,
        }),
        (None, None, None, None) => {
            Err("has no credential: write api_key; or client_id with client_secret or audience.")
        }
        // Refused, not ranked: nobody should have to guess which credential is in use.
        (Some(_), ..) => {
            Err("has api_key and client_id, client_secret or audience: keep api_key or the others.")
        }
        (None, Some(_), None, None) => Err(
            "has only client_id: also write client_secret (an OAuth client) or audience (a federated \
             identity).",
        ),
        (None, Some(_), Some(_), Some(_)) => Err(
            "has both client_secret and audience: keep client_secret for an OAuth client, audience \
             for a federated identity.",
        ),
        (None, None, ..) => Err("has client_secret or audience without client_id: write both."),
    }
}

/// The secret that signs Tailscale's webhooks, if the Secret has one.
pub(in crate::controller) fn webhook_secret(
    data: &Data,
) -> Result<Option<SecretString>, &'static str> {
    Ok(text(data, "webhook_secret")?.map(SecretString::from))
}

fn text(data: &Data, key: &str) -> Result<Option<String>, &'static str> {
    let Some(bytes) = data.get(key) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes.0)
        .map_err(|_| "has a value that is not UTF-8: check how it was stored.")?;
    // A trailing line feed comes with every file.
    // A template may leave a key empty, which counts as no key.
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_credential_is_accepted_and_no_mixture() {
        let keys = ["api_key", "client_id", "client_secret", "audience"];
        let ways = [
            &["api_key"][..],
            &["client_id", "client_secret"],
            &["client_id", "audience"],
        ];
        for set in 0_u8..16 {
            let named: Vec<_> = (0..4)
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| keys[bit])
                .collect();
            let mut data: Data = keys
                .iter()
                .map(|key| ((*key).to_owned(), ByteString(b" \n".into())))
                .collect();
            for key in &named {
                data.insert((*key).to_owned(), ByteString(b"value\n".into()));
            }
            let login = login(&data);
            assert_eq!(login.is_ok(), ways.contains(&&named[..]), "{named:?}");
            if let Err(error) = login {
                assert!(error.contains("write") || error.contains("keep"), "{error}");
            }
        }
    }
}
