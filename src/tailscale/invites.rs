//! Invites to share a device.
//!
//! The URL of an invite is a secret, so no part of an answer enters an error.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    Client, Endpoint, Error,
    json::Object,
    request::{Body, Request},
    response::Answer,
};
use crate::model::{DesiredInvite, Invite, NodeId};

impl Client {
    /// The invites to a device, accepted ones too.
    pub async fn device_invites(&self, id: &NodeId) -> Result<Vec<Invite>, Error> {
        let path = ["device", id.as_str(), "device-invites"];
        let request = Request::new(Endpoint::DeviceInvites, Method::GET, path);
        invites(&self.send(&request).await?)
    }

    /// Creates an invite. Needs a user's own API token.
    pub async fn create_device_invite(
        &self,
        id: &NodeId,
        desired: &DesiredInvite,
    ) -> Result<Invite, Error> {
        let mut body = json!({
            "multiUse": desired.multi_use,
            "allowExitNode": desired.allow_exit_node,
        });
        if let Some(email) = &desired.email {
            body["email"] = json!(email);
        }
        let path = ["device", id.as_str(), "device-invites"];
        let request = Request::new(Endpoint::CreateDeviceInvite, Method::POST, path);
        // The API takes several at once.
        let request = request.body(Body::Json(json!([body])));
        let answer = self.send(&request).await?;
        let mut made = invites(&answer)?.into_iter();
        // Among several, the requested one is unknown.
        match (made.next(), made.next()) {
            (Some(invite), None) => Ok(invite),
            _ => Err(answer.unexpected("expected the one invite that was asked for")),
        }
    }
}

fn invites(answer: &Answer) -> Result<Vec<Invite>, Error> {
    let mut json = serde_json::Deserializer::from_slice(&answer.body);
    let decoded: Result<Vec<Object<WireInvite>>, _> = serde_path_to_error::deserialize(&mut json);
    match decoded {
        Ok(invites) if json.end().is_ok() => {
            Ok(invites.into_iter().map(|wire| wire.0.into()).collect())
        }
        Ok(_) => Err(answer.unexpected("something follows the list of invites")),
        // Messages of serde quote the invalid value.
        Err(error) => Err(answer.unexpected(&format!(
            "expected a list of invites, found something else at {}",
            error.path()
        ))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireInvite {
    id: String,
    /// The API may omit false booleans and an empty email.
    #[serde(default)]
    multi_use: bool,
    #[serde(default)]
    allow_exit_node: bool,
    #[serde(default)]
    email: Option<String>,
    invite_url: String,
    accepted: bool,
    #[serde(default)]
    accepted_by: Option<WireUser>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUser {
    login_name: Option<String>,
}

impl From<WireInvite> for Invite {
    fn from(wire: WireInvite) -> Self {
        Self {
            id: wire.id,
            made_as: DesiredInvite {
                email: wire.email.filter(|email| !email.is_empty()),
                multi_use: wire.multi_use,
                allow_exit_node: wire.allow_exit_node,
            },
            accepted: wire.accepted,
            accepted_by: wire.accepted_by.and_then(|user| user.login_name),
            url: wire.invite_url.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            endpoint: Endpoint::DeviceInvites,
            request: "GET /device/n1/device-invites".to_owned(),
            status: reqwest::StatusCode::OK,
            request_id: None,
            body: body.into(),
            devices: Vec::new(),
            skipped: crate::model::UnreadableDevices::default(),
            date: None,
            secret: None,
        }
    }

    #[test]
    fn response_of_the_wrong_shape_is_an_error_that_does_not_quote_it() {
        let url = r#""https://login.tailscale.com/admin/invite/code""#;
        for body in [
            format!(r#"{{"inviteUrl": {url}}}"#),
            format!(r#"[{{"id": "1", "inviteUrl": {url}, "accepted": {url}}}]"#),
            format!(r#"[{{"id": "1", "inviteUrl": [{url}], "accepted": false}}]"#),
            format!("[] {url}"),
            format!("[[{url}]]"),
            url.to_owned(),
            "null".to_owned(),
            String::new(),
        ] {
            let error = invites(&answer(&body)).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("code"), "{body}: {text}");
        }
    }
}
