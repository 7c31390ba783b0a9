//! The cluster that a command connects to, chosen as by kubectl.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::path::PathBuf;

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::process::AnyError;
use crate::controller;

/// kubectl's flags for the choice of a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterArgs {
    /// The kubeconfig to use [default: KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use [default: the current context].
    #[arg(long, value_name = "NAME")]
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
            return Ok(controller::cluster().await?);
        }
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig =
            kubeconfig.map_err(|error| format!("cannot use the kubeconfig: {error}"))?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        config.map_err(|error| match &self.context {
            Some(context) => format!("--context {context}: {error}").into(),
            None => format!("cannot use the kubeconfig: {error}").into(),
        })
    }
}
