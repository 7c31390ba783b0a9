//! A real Chromium without a window, controlled over a pipe.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The names of the program, after the variable `CHROMIUM`.
const NAMES: [&str; 3] = ["chromium", "google-chrome", "chrome"];

/// A browser with one page.
pub struct Browser {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with an empty page.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = program();
        // It reads from file descriptor 3, and writes to 4.
        let mut process = Command::new("bash")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(&program)
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            calls: 0,
            session: None,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Log", "Runtime", "Performance"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a file, and waits until it is loaded.
    pub fn open(&mut self, file: &Path, fragment: &str) {
        // Else another fragment would not load the page anew.
        self.load("about:blank");
        self.load(&format!("file://{}{fragment}", file.display()));
    }

    fn load(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", &json!({"url": url}));
        while !self
            .events
            .iter()
            .any(|it| it["method"] == "Page.loadEventFired")
        {
            let event = self.read();
            self.events.push(event);
        }
    }

    /// The events of this name since the page was opened.
    pub fn events(&self, name: &str) -> Vec<&Value> {
        let events = self.events.iter().filter(|it| it["method"] == name);
        events.map(|it| &it["params"]).collect()
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let arguments = json!({"expression": expression, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &arguments);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Clicks in the middle of an element, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); it.scrollIntoView({{block: 'center'}}); \
             const at = it.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &click);
        }
    }

    /// Types into the focused element.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Gives the page this size, as on a phone or a screen.
    pub fn resize(&mut self, width: u32, height: u32) {
        let phone = width < 600;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets what the reader prefers: `dark` or `light`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The number of nodes of all pages, as Chromium counts them.
    pub fn nodes(&mut self) -> f64 {
        let all = self.call("Performance.getMetrics", &json!({}));
        let all = all["metrics"].as_array().unwrap();
        let nodes = all.iter().find(|it| it["name"] == "Nodes").unwrap();
        nodes["value"].as_f64().unwrap()
    }

    /// Writes what the page looks like into a file, for a person.
    pub fn picture(&mut self, file: &Path) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let png = self.call(
            "Page.captureScreenshot",
            &json!({"captureBeyondViewport": true}),
        );
        let png = STANDARD.decode(png["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    fn call(&mut self, method: &str, arguments: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": arguments});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        write!(self.input, "{call}\0").unwrap();
        self.input.flush().unwrap();
        loop {
            let message = self.read();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The next message.
    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "Chromium has ended");
        serde_json::from_slice(&message).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> String {
    if let Ok(program) = env::var("CHROMIUM") {
        return program;
    }
    let paths: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let is_there = |name: &&str| paths.iter().any(|path| path.join(name).is_file());
    let found = NAMES.into_iter().find(is_there);
    let Some(found) = found else {
        panic!(
            "Chromium is missing, in which the page of tsdp report is tested. To fix it: apt-get install chromium, or set \
             CHROMIUM to the program"
        );
    };
    found.to_owned()
}
