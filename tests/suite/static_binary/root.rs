//! A root folder as in the image.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use super::names;

/// In a mount namespace of its own, so that nothing stays mounted. `exec` keeps the process ID.
const ENTER: &str = r#"mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
exec chroot --userspec=65532:65532 "$0" /tsdp "$@""#;

pub struct Root(TempDir);

impl Root {
    pub fn new(binary: &Path, authority: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
        fs::copy(binary, root.join("tsdp")).unwrap();
        let resolver = format!("nameserver {}\n", names::ADDRESS);
        for (path, content) in [
            ("etc/ssl/certs/ca-certificates.crt", authority),
            ("etc/resolv.conf", &resolver),
            ("etc/hosts", "127.0.0.1 hosts.test\n"),
        ] {
            fs::write(root.join(path), content).unwrap();
        }
        Self(folder)
    }

    /// Adds `/kubeconfig`, as a mounted Secret would. It must not refer to other files.
    pub fn add_kubeconfig(&self, text: &str) {
        let mut config: Value = serde_json::from_str(text).unwrap();
        let cluster = config["clusters"][0]["cluster"].as_object_mut().unwrap();
        let file = cluster.remove("certificate-authority").unwrap();
        let authority = fs::read(file.as_str().unwrap()).unwrap();
        let data = STANDARD.encode(authority);
        cluster.insert("certificate-authority-data".to_owned(), data.into());
        fs::write(self.0.path().join("kubeconfig"), config.to_string()).unwrap();
    }

    /// The program in this root, with an empty environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-ec", ENTER])
            .arg(self.0.path())
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }
}
