//! The connection to a tailnet without a cluster: from flags and from the environment variables of
//! Tailscale's Terraform provider.

#![allow(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "`--help` shows the comments verbatim"
)]

use std::{fmt, sync::Arc, time::Duration};

use clap::Args;
use futures::future::{BoxFuture, FutureExt as _, ready};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::{
    api::TailscaleTailnetSpec,
    model::Refused,
    tailscale::{
        self, Budget, Client, Credential, IdentitySource, NoIdentity, Settings, SetupError,
        Timeouts,
    },
};

/// The flags of a command that calls the Tailscale API. None of them takes a secret: a secret in a flag
/// appears in the shell's history and in the list of processes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// The tailnet: its ID, or - for the tailnet of the credential [default: TAILSCALE_TAILNET, else -].
    #[arg(long, value_name = "TAILNET")]
    tailnet: Option<String>,
    /// The address of the API [default: TAILSCALE_BASE_URL, else https://api.tailscale.com].
    #[arg(hide_short_help = true, long, value_name = "URL")]
    base_url: Option<String>,
    /// The ID of an OAuth client or of a federated identity [default: TAILSCALE_OAUTH_CLIENT_ID].
    #[arg(hide_short_help = true, long, value_name = "ID")]
    oauth_client_id: Option<String>,
    /// The maximum number of requests to the API per second. Tailscale publishes no limit and answers 429 when
    /// it is reached, which tsdp waits out. The default leaves room for the controller and for other programs.
    #[arg(hide_short_help = true, long, value_name = "NUMBER", default_value_t = DEFAULT_RATE)]
    requests_per_second: f64,
    /// How many seconds to wait for an answer of the API. The list of devices may take twice as long.
    #[arg(hide_short_help = true, long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// The defaults of the controller: Tailscale publishes no limits.
const DEFAULT_RATE: f64 = 5.0;
const DEFAULT_BURST: u32 = 20;

/// In seconds.
const DEFAULT_TIMEOUT: u64 = 30;

/// The paragraph about the credential, for the help of each command with [`ConnectionArgs`].
pub(super) const CREDENTIAL_HELP: &str = "\
The credential comes from the environment, as for Tailscale's Terraform provider:
  TAILSCALE_API_KEY                                         an API access token, or
  TAILSCALE_OAUTH_CLIENT_ID, TAILSCALE_OAUTH_CLIENT_SECRET  an OAuth client, or
  TAILSCALE_OAUTH_CLIENT_ID, TAILSCALE_IDENTITY_TOKEN       a federated identity and a token for it";

/// The environment variables. An empty one counts as unset, as for the Terraform provider.
#[derive(Debug, Default)]
pub(super) struct Environment {
    api_key: Option<SecretString>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    identity_token: Option<SecretString>,
    tailnet: Option<String>,
    base_url: Option<String>,
}

/// A connection to a tailnet.
#[derive(Debug)]
pub(super) struct Connection {
    /// The API's URL, the tailnet, and the request budget.
    pub settings: Settings,
    /// The credential.
    pub credential: Credential,
}

/// Why there is no usable connection. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// There is no credential.
    #[error(
        "found no credential. Set TAILSCALE_API_KEY to an API access token, or set \
         TAILSCALE_OAUTH_CLIENT_ID, and beside it TAILSCALE_OAUTH_CLIENT_SECRET (an OAuth client) or \
         TAILSCALE_IDENTITY_TOKEN (a federated identity)"
    )]
    NoCredential,
    /// There are two credentials.
    #[error("{0} and {1} are both set, expected one credential. Unset one of them")]
    TwoCredentials(&'static str, &'static str),
    /// One variable of a credential is missing.
    #[error("{given} is set without {lacks}. Set both")]
    HalfCredential {
        /// The variable that is set.
        given: &'static str,
        /// The variable that is missing.
        lacks: &'static str,
    },
    /// The base URL cannot be parsed.
    #[error(
        "the base URL '{url}' is not a valid URL: {reason}. Write one such as https://api.tailscale.com"
    )]
    BaseUrl {
        /// The value that was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The rate is out of range.
    #[error("--requests-per-second: {0}")]
    Rate(Refused),
    /// The client cannot be created.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        // CI systems set a variable to the empty string if its secret does not exist.
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let secret = |name: &str| given(name).map(SecretString::from);
        Self {
            api_key: secret("TAILSCALE_API_KEY"),
            // The names without the prefix are the provider's older ones, which it still reads.
            client_id: given("TAILSCALE_OAUTH_CLIENT_ID").or_else(|| given("OAUTH_CLIENT_ID")),
            client_secret: secret("TAILSCALE_OAUTH_CLIENT_SECRET")
                .or_else(|| secret("OAUTH_CLIENT_SECRET")),
            identity_token: secret("TAILSCALE_IDENTITY_TOKEN"),
            tailnet: given("TAILSCALE_TAILNET"),
            base_url: given("TAILSCALE_BASE_URL"),
        }
    }

    /// The connection that the environment and the flags describe. A flag takes precedence over a variable.
    pub fn connection(self, flags: &ConnectionArgs) -> Result<Connection, ConnectionError> {
        let url = flags
            .base_url
            .clone()
            .or(self.base_url)
            .unwrap_or_else(|| TailscaleTailnetSpec::DEFAULT_API_URL.to_owned());
        let base_url = url.parse().map_err(|reason| ConnectionError::BaseUrl {
            url: url.clone(),
            reason: format!("{reason}"),
        })?;
        let tailnet = flags.tailnet.clone().or(self.tailnet);
        let client_id = flags.oauth_client_id.clone().or(self.client_id);
        let credential = credential(
            self.api_key,
            client_id,
            self.client_secret,
            self.identity_token,
        )?;
        Ok(Connection {
            settings: Settings {
                budget: flags.budget()?,
                timeouts: flags.timeouts(),
                // `-` is the API's name for the tailnet of the credential.
                ..Settings::new(base_url, tailnet.unwrap_or_else(|| "-".to_owned()))
            },
            credential,
        })
    }
}

/// Refuses two credentials, as the provider does: a silent choice could use the wrong account.
fn credential(
    api_key: Option<SecretString>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    identity_token: Option<SecretString>,
) -> Result<Credential, ConnectionError> {
    const KEY: &str = "TAILSCALE_API_KEY";
    const ID: &str = "TAILSCALE_OAUTH_CLIENT_ID";
    const SECRET: &str = "TAILSCALE_OAUTH_CLIENT_SECRET";
    const TOKEN: &str = "TAILSCALE_IDENTITY_TOKEN";
    match (api_key, client_id, client_secret, identity_token) {
        (Some(key), None, None, None) => Ok(Credential::ApiKey(key)),
        (None, Some(client_id), Some(client_secret), None) => Ok(Credential::OAuth {
            client_id,
            client_secret,
        }),
        (None, Some(client_id), None, Some(token)) => Ok(Credential::WorkloadIdentity {
            client_id,
            source: Arc::new(GivenToken(token)),
        }),
        (None, None, None, None) => Err(ConnectionError::NoCredential),
        (Some(_), Some(_), _, _) => Err(ConnectionError::TwoCredentials(KEY, ID)),
        (Some(_), _, Some(_), _) => Err(ConnectionError::TwoCredentials(KEY, SECRET)),
        (Some(_), _, _, Some(_)) => Err(ConnectionError::TwoCredentials(KEY, TOKEN)),
        (None, _, Some(_), Some(_)) => Err(ConnectionError::TwoCredentials(SECRET, TOKEN)),
        (None, Some(_), None, None) => Err(ConnectionError::HalfCredential {
            given: ID,
            lacks: "TAILSCALE_OAUTH_CLIENT_SECRET or TAILSCALE_IDENTITY_TOKEN",
        }),
        (None, None, Some(_), None) => Err(ConnectionError::HalfCredential {
            given: SECRET,
            lacks: ID,
        }),
        (None, None, None, Some(_)) => Err(ConnectionError::HalfCredential {
            given: TOKEN,
            lacks: ID,
        }),
    }
}

/// A token that another system issued for this run, for example a CI system.
struct GivenToken(SecretString);

impl IdentitySource for GivenToken {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoIdentity>> {
        ready(Ok(self.0.clone())).boxed()
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not derived: nothing of the token may reach a log.
        f.write_str("GivenToken")
    }
}

impl Default for ConnectionArgs {
    fn default() -> Self {
        Self {
            tailnet: None,
            base_url: None,
            oauth_client_id: None,
            requests_per_second: DEFAULT_RATE,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl ConnectionArgs {
    /// A client of the tailnet that the flags and the environment of this process describe.
    pub fn client(&self) -> Result<Client, ConnectionError> {
        self.client_until(CancellationToken::new())
    }

    /// As [`Self::client`], but the client stops sending once `stop` is cancelled.
    pub fn client_until(&self, stop: CancellationToken) -> Result<Client, ConnectionError> {
        let connection = Environment::of_process().connection(self)?;
        let settings = Settings {
            stop,
            ..connection.settings
        };
        Ok(tailscale::Client::new(settings, connection.credential)?)
    }

    /// The maximum number of requests per second.
    pub fn rate(&self) -> f64 {
        self.requests_per_second
    }

    /// How long this many requests take at least.
    pub fn time_of(&self, requests: usize) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a tailnet needs fewer requests than a float can count"
        )]
        let seconds = requests as f64 / self.requests_per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn timeouts(&self) -> Timeouts {
        let request = Duration::from_secs(self.timeout);
        let default = Timeouts::default();
        Timeouts {
            connect: default.connect.min(request),
            request,
            list: request * 2,
        }
    }

    fn budget(&self) -> Result<Budget, ConnectionError> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates, and the budget refuses what is out of range"
        )]
        let second = self.requests_per_second.ceil() as u32;
        // At least the requests of one second, so that the burst never limits a higher rate.
        Budget::new(self.requests_per_second, second.max(DEFAULT_BURST))
            .map_err(ConnectionError::Rate)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let found = variables.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_kind_of_credential_is_accepted_and_no_mixture_of_them() {
        let names = [
            "TAILSCALE_API_KEY",
            "TAILSCALE_OAUTH_CLIENT_ID",
            "TAILSCALE_OAUTH_CLIENT_SECRET",
            "TAILSCALE_IDENTITY_TOKEN",
        ];
        let good = [0b0001, 0b0110, 0b1010];
        for set in 0_u8..16 {
            let given: Vec<_> = (0..4).filter(|bit| set & (1 << bit) != 0).collect();
            let variables: Vec<_> = given.iter().map(|bit| (names[*bit], "tskey-xyz")).collect();
            let made = environment(&variables).connection(&ConnectionArgs::default());
            assert_eq!(made.is_ok(), good.contains(&set), "{variables:?}");
            if let Err(error) = made {
                let error = error.to_string();
                assert!(error.contains("set"), "{error}");
                assert!(!error.contains("tskey-xyz"), "{error}");
                let reported = given.iter().any(|bit| error.contains(names[*bit]));
                assert!(reported || given.is_empty(), "{error}");
            }
        }
    }

    #[test]
    fn a_flag_takes_precedence_over_a_variable_and_an_empty_variable_counts_as_unset() {
        let key = ("TAILSCALE_API_KEY", "tskey-api-1");
        let made = |flags: &ConnectionArgs, more: &[(&str, &str)]| {
            let variables = [&[key], more].concat();
            let connection = environment(&variables).connection(flags).unwrap();
            let settings = connection.settings;
            (settings.tailnet, settings.base_url.to_string())
        };
        let flags = ConnectionArgs::default();
        let expected = |tailnet: &str, url: &str| (tailnet.to_owned(), url.to_owned());
        let default = expected("-", "https://api.tailscale.com/");
        assert_eq!(made(&flags, &[]), default);
        let empty = [("TAILSCALE_TAILNET", ""), ("TAILSCALE_BASE_URL", " ")];
        assert_eq!(made(&flags, &empty), default);
        let named = [
            ("TAILSCALE_TAILNET", "T1CNTRL"),
            ("TAILSCALE_BASE_URL", "http://127.0.0.1:1"),
        ];
        assert_eq!(
            made(&flags, &named),
            expected("T1CNTRL", "http://127.0.0.1:1/")
        );
        let flags = ConnectionArgs {
            tailnet: Some("T2CNTRL".into()),
            base_url: Some("http://127.0.0.1:2".into()),
            ..flags
        };
        assert_eq!(
            made(&flags, &named),
            expected("T2CNTRL", "http://127.0.0.1:2/")
        );
    }

    #[test]
    fn the_older_names_of_the_oauth_client_are_read_after_the_newer_ones() {
        let variables = [
            ("OAUTH_CLIENT_ID", "old"),
            ("OAUTH_CLIENT_SECRET", "tskey-client-old"),
            ("TAILSCALE_OAUTH_CLIENT_SECRET", "tskey-client-new"),
        ];
        let connection = environment(&variables).connection(&ConnectionArgs::default());
        let Credential::OAuth {
            client_id,
            client_secret,
        } = connection.unwrap().credential
        else {
            panic!("no OAuth client");
        };
        assert_eq!(client_id, "old");
        assert_eq!(client_secret.expose_secret(), "tskey-client-new");
    }

    #[test]
    fn an_invalid_url_or_rate_is_refused_with_an_example() {
        let key = [("TAILSCALE_API_KEY", "tskey-api-1")];
        let refused = |flags: ConnectionArgs| {
            let made = environment(&key).connection(&flags);
            made.map(|_| ()).unwrap_err().to_string()
        };
        let flags = ConnectionArgs {
            base_url: Some("api.tailscale.com".into()),
            ..ConnectionArgs::default()
        };
        assert!(refused(flags).contains("https://api.tailscale.com"));
        let flags = ConnectionArgs {
            requests_per_second: 0.0,
            ..ConnectionArgs::default()
        };
        assert!(refused(flags).starts_with("--requests-per-second: "));
    }

    #[test]
    fn debug_output_of_a_connection_holds_no_secret() {
        for variables in [
            [("TAILSCALE_API_KEY", "tskey-1"), ("X", "")],
            [
                ("TAILSCALE_OAUTH_CLIENT_ID", "id"),
                ("TAILSCALE_OAUTH_CLIENT_SECRET", "tskey-2"),
            ],
            [
                ("TAILSCALE_OAUTH_CLIENT_ID", "id"),
                ("TAILSCALE_IDENTITY_TOKEN", "tskey-3"),
            ],
        ] {
            let environment = environment(&variables);
            let read = format!("{environment:?}");
            let made = environment.connection(&ConnectionArgs::default());
            let printed = format!("{read}{made:?}");
            assert!(!printed.contains("tskey"), "{printed}");
        }
    }
}
