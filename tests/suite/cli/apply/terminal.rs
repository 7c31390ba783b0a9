use std::process::Stdio;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use crate::cli::tailnet::{API_KEY, Tailnet};

/// The program on its own terminal, with a user who reads and types.
pub struct Terminal {
    child: Child,
    seen: String,
}

impl Terminal {
    pub fn open(tailnet: &Tailnet, args: &[&str]) -> Self {
        let words = args.iter().map(|word| format!("'{word}'"));
        let words: Vec<_> = words.collect();
        let program = env!("CARGO_BIN_EXE_tsdp");
        let line = format!("{program} {} --requests-per-second 1000", words.join(" "));
        let child = Command::new("script")
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--command",
                &line,
                "/dev/null",
            ])
            .current_dir(tailnet.folder.path())
            .env("TAILSCALE_API_KEY", API_KEY)
            .env("TAILSCALE_BASE_URL", tailnet.simulator.url())
            .env("NO_COLOR", "1")
            .env("COLUMNS", "200")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            child,
            seen: String::new(),
        }
    }

    /// Waits for this text and returns the output before it.
    pub async fn until(&mut self, text: &str) -> String {
        let out = self.child.stdout.as_mut().unwrap();
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                let after = self.seen.split_off(at);
                let before = std::mem::take(&mut self.seen);
                self.seen.push_str(&after[text.len()..]);
                return before;
            }
            let read = out.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "it ended without '{text}': {}", self.seen);
            self.seen += &String::from_utf8_lossy(&buffer[..read]);
        }
    }

    pub async fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// The rest of the output, and the exit code.
    pub async fn end(mut self) -> (String, Option<i32>) {
        let out = self.child.stdout.as_mut().unwrap();
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).await.unwrap();
        let code = self.child.wait().await.unwrap().code();
        let rest = self.seen + &String::from_utf8_lossy(&rest);
        assert!(!rest.contains(API_KEY), "a credential is printed: {rest}");
        (rest, code)
    }
}
