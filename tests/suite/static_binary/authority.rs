//! A certificate authority, by the program openssl.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

const CONFIG: &str = "[ca]\ndefault_ca = test\n[test]\nnew_certs_dir = .\ndatabase = index.txt\n\
    rand_serial = yes\ndefault_md = sha256\npolicy = any\ncertificate = ca.crt\nprivate_key = ca.key\n\
    [any]\ncommonName = supplied\n";
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

pub struct Authority(TempDir);

/// A certificate with its key, both as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        fs::write(authority.path("ca.cnf"), CONFIG).unwrap();
        fs::write(authority.path("index.txt"), "").unwrap();
        let new = [
            "req",
            "-x509",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-subj",
            "/CN=authority",
            "-days",
            "2",
        ];
        authority.openssl(&[&new[..], &NEW_KEY].concat());
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> String {
        fs::read_to_string(self.path("ca.crt")).unwrap()
    }

    pub fn issue(&self, file: &str, names: &[&str]) -> Identity {
        self.sign(file, names, &["-days", "2"])
    }

    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Identity {
        let then = [
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20210101000000Z",
        ];
        self.sign(file, names, &then)
    }

    fn sign(&self, file: &str, names: &[&str], validity: &[&str]) -> Identity {
        let with = |extension: &str| format!("{file}.{extension}");
        let (key, request, certificate) = (with("key"), with("csr"), with("crt"));
        let subject = format!("/CN={file}");
        let new = ["req", "-keyout", &key, "-out", &request, "-subj", &subject];
        self.openssl(&[&new[..], &NEW_KEY].concat());
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let extensions = format!(
            "subjectAltName={}\nbasicConstraints=CA:FALSE\n",
            names.join(",")
        );
        fs::write(self.path("extensions"), extensions).unwrap();
        let sign = [
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-extfile",
            "extensions",
        ];
        let files = ["-in", &request, "-out", &certificate];
        self.openssl(&[&sign[..], &files, validity].concat());
        let text = |file: &str| fs::read_to_string(self.path(file)).unwrap();
        Identity {
            certificate: text(&certificate),
            key: text(&key),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| panic!("cannot run openssl: {error}. Install OpenSSL 3"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}: {error}");
    }
}
