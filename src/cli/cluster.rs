//! The cluster that a command connects to, chosen as by kubectl.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::path::PathBuf;

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{output::printable, process::AnyError};
use crate::{controller, model::causes};

/// kubectl's flags for the choice of a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// The kubeconfig to use [default: KUBECONFIG, else ~/.kube/config].
    #[arg(hide_short_help = true, long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use [default: the current context].
    #[arg(hide_short_help = true, long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// A client. Its default namespace is that of the context.
    pub async fn client(&self) -> Result<Client, AnyError> {
        Ok(Client::try_from(self.config().await?)?)
    }

    async fn config(&self) -> Result<Config, AnyError> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            // Also finds the service account of a pod, which must not replace a kubeconfig that is
            // named.
            let found = controller::cluster().await;
            return Ok(found.map_err(|error| cannot_use(&error))?);
        }
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = kubeconfig.map_err(|error| cannot_use(&error))?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| match &self.context {
            Some(context) => format!("--context {context}: {}", printable(&causes(&error))).into(),
            None => cannot_use(&error).into(),
        })
    }

    /// Whether a flag chooses a cluster.
    pub fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// Why there is no cluster to connect to. The library writes the path of a file as a program would.
fn cannot_use(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<KubeconfigError>() {
            Some(KubeconfigError::ReadConfig(error, path)) => {
                let path = printable(&path.display().to_string());
                return format!(
                    "cannot read the kubeconfig {path}: {error}. Name another one with KUBECONFIG or --kubeconfig"
                );
            }
            Some(error) => {
                return format!("cannot use the kubeconfig: {}", printable(&causes(error)));
            }
            None => cause = error.source(),
        }
    }
    format!("cannot use the kubeconfig: {}", printable(&causes(error)))
}
