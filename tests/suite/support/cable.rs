//! A cable between one controller and the API server, which can be cut and repaired.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kube::config::Kubeconfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Connections are refused, and open ones are reset.
    Cut,
    /// Connections stay open and silent. Data arrives once the cable is repaired.
    Silent,
}

pub struct Cable {
    kubeconfig: PathBuf,
    state: watch::Sender<State>,
    _folder: TempDir,
}

impl Cable {
    /// To the API server of this kubeconfig.
    pub async fn to(kubeconfig: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
        let here = format!("https://{}", listener.local_addr().unwrap());
        let cluster = config.clusters[0].cluster.as_mut().unwrap();
        let server = cluster.server.replace(here).unwrap();
        let server = server.trim_start_matches("https://").to_owned();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        let (state, states) = watch::channel(State::Whole);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server.clone(), states.clone()));
            }
        });
        Self {
            kubeconfig: path,
            state,
            _folder: folder,
        }
    }

    /// The kubeconfig for the client behind the cable.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    pub fn repair(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn carry(near: TcpStream, server: String, mut states: watch::Receiver<State>) {
    if *states.borrow_and_update() == State::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(server).await else {
        return;
    };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut cut = states.clone();
    tokio::select! {
        _ = cut.wait_for(|state| *state == State::Cut) => {}
        () = async {
            tokio::join!(
                forward(near_in, far_out, states.clone()),
                forward(far_in, near_out, states.clone()),
            );
        } => {}
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = states.wait_for(|state| *state != State::Silent);
        if passes.await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
