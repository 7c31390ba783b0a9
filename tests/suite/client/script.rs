//! An HTTP server that answers from a script and records the requests.
//!
//! Written on plain TCP: some scripts break off in the middle of a response.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

/// A request as received.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
    /// By tokio's clock, which a test may have paused.
    pub at: Instant,
}

#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    breaks_off: bool,
}

pub struct Script {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            breaks_off: false,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection ends in the middle of the body.
    pub fn that_breaks_off(mut self) -> Self {
        self.breaks_off = true;
        self
    }

    /// The connection closes without a response.
    pub fn hang_up() -> Self {
        Self::new(0, "")
    }

    pub fn is_status(&self, status: u16) -> bool {
        self.status == status
    }

    pub fn is_success(&self) -> bool {
        self.is_status(200)
    }

    fn bytes(&self) -> String {
        if self.status == 0 {
            return String::new();
        }
        let promised = self.body.len() + if self.breaks_off { 100 } else { 0 };
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!(
            "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {promised}\r\n{}\r\n{}",
            self.status,
            headers.concat(),
            self.body
        )
    }
}

impl Script {
    /// Answers each request with the result of `reply`.
    pub async fn start(mut reply: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    let (mut connection, _) = listener.accept().await.unwrap();
                    let Some(request) = read_request(&mut connection).await else {
                        continue;
                    };
                    let bytes = reply(&request).bytes();
                    seen.lock().unwrap().push(request);
                    // A client that is already gone does not matter.
                    let _ = connection.write_all(bytes.as_bytes()).await;
                    let _ = connection.shutdown().await;
                }
            }
        });
        Self { url, seen, task }
    }

    /// Answers with `replies` in order, then repeats the last one.
    pub async fn in_turn(replies: impl Into<Vec<Reply>>) -> Self {
        let mut replies = replies.into().into_iter();
        let mut last = Reply::hang_up();
        Self::start(move |_| {
            if let Some(reply) = replies.next() {
                last = reply;
            }
            last.clone()
        })
        .await
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_request(connection: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if let Some(request) = parse(&bytes) {
            return Some(request);
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// `None` while the request is incomplete.
fn parse(bytes: &[u8]) -> Option<Seen> {
    let text = str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, v)| *v)
    };
    let length: usize = header("content-length").map_or(0, |value| value.parse().unwrap());
    (body.len() == length).then(|| Seen {
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        authorization: header("authorization").map(str::to_owned),
        body: body.to_owned(),
        at: Instant::now(),
    })
}
