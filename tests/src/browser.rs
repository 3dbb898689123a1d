//! A headless browser, driven by Chromium's DevTools protocol over two pipes.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::{PATIENCE, base64, eventually, scratch};

/// The event by which a page tells that it opens a dialog.
const DIALOG: &str = "Page.javascriptDialogOpening";

/// A browser with one page.
pub struct Browser {
    process: Process,
    to: RefCell<File>,
    from: RefCell<BufReader<File>>,
    calls: Cell<u64>,
    complaints: RefCell<Vec<String>>,
    /// Of the page.
    session: String,
    /// Its profile, which goes with it.
    _dir: TempDir,
}

impl Browser {
    /// Starts one and opens a page.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not start.
    pub fn open(url: &str) -> Result<Self> {
        let dir = scratch::directory("browser")?;
        let [to, from] = ["to", "from"].map(|name| dir.path().join(name));
        for pipe in [&to, &from] {
            mkfifoat(CWD, pipe, Mode::RUSR | Mode::WUSR)?;
        }
        if Command::new("chromium").arg("--version").output().is_err() {
            bail!("there is no chromium: run scripts/setup tests");
        }
        // A shell gives it the descriptors on which it expects its pipes.
        let call = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
                    --hide-scrollbars --no-first-run --user-data-dir=\"$0\" \
                    --remote-debugging-pipe 3<\"$1\" 4>\"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", call]).arg(dir.path().join("profile")).arg(&to).arg(&from);
        // What it leaves in the directory for temporary files when it is killed goes with its profile.
        command.env("TMPDIR", dir.path());
        let process = Process::start("chromium", dir.path(), command)?;
        let to = RefCell::new(OpenOptions::new().write(true).open(to)?);
        let from = RefCell::new(BufReader::new(File::open(from)?));
        let (calls, complaints, session) = (Cell::new(0), RefCell::default(), String::new());
        let mut browser = Browser { process, to, from, calls, complaints, session, _dir: dir };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().context("a session")?.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        browser.call("Page.navigate", &json!({ "url": url }))?;
        Ok(browser)
    }

    /// Calls a method of the protocol; of the events that come meanwhile only complaints are kept.
    ///
    /// # Errors
    ///
    /// When the browser refuses, or has ended.
    pub fn call(&self, method: &str, parameters: &Value) -> Result<Value> {
        let id = self.send(method, parameters)?;
        loop {
            let answer = self.receive()?;
            if answer["id"] != json!(id) {
                self.complaints.borrow_mut().extend(complaint(&answer));
                // The page stands still until somebody has closed its dialog.
                if answer["method"] == DIALOG {
                    self.send("Page.handleJavaScriptDialog", &json!({ "accept": false }))?;
                }
                continue;
            }
            if !answer["error"].is_null() {
                bail!("{method}: {}", answer["error"]);
            }
            return Ok(answer["result"].clone());
        }
    }

    fn send(&self, method: &str, parameters: &Value) -> Result<u64> {
        let id = self.calls.get() + 1;
        self.calls.set(id);
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.borrow_mut().write_all(format!("{message}\0").as_bytes())?;
        Ok(id)
    }

    fn receive(&self) -> Result<Value> {
        let mut answer = Vec::new();
        self.from.borrow_mut().read_until(0, &mut answer)?;
        if answer.pop() != Some(0) {
            bail!("the browser has ended:\n{}", self.process.output()?);
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// What an expression in the page is now.
    ///
    /// # Errors
    ///
    /// When it throws.
    pub fn evaluate(&self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &parameters)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{expression}: {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// The text of the first element that a selector finds, as people see it.
    ///
    /// # Errors
    ///
    /// When the page does not answer.
    pub fn text(&self, selector: &str) -> Result<String> {
        let found = self.evaluate(&format!(
            "(document.querySelector({}) || {{}}).innerText || ''",
            json!(selector)
        ))?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an element shows all of these texts.
    ///
    /// # Errors
    ///
    /// When it never does.
    pub fn wait_for(&self, selector: &str, texts: &[&str]) -> Result<()> {
        let shown = || self.text(selector).unwrap_or_default();
        let waited = eventually(&format!("{selector} to show {texts:?}"), PATIENCE, || {
            let shown = shown();
            texts.iter().all(|text| shown.contains(text)).then_some(())
        });
        waited.with_context(|| {
            format!("it shows: {}; complaints: {:?}", shown(), self.complaints.borrow())
        })
    }

    /// What went wrong in the page so far: exceptions that nobody caught, what its policy forbade, dialogs.
    /// That a server is gone is not among it.
    ///
    /// # Errors
    ///
    /// When the browser has ended.
    pub fn complaints(&self) -> Result<Vec<String>> {
        // By the time that it has answered, it has told everything before.
        self.evaluate("0")?;
        Ok(self.complaints.borrow().clone())
    }

    /// Pretends that the screen is as large as this, and what its user prefers.
    ///
    /// # Errors
    ///
    /// When the browser cannot.
    pub fn pretend(&self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &screen)?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Draws the page into a PNG file.
    ///
    /// # Errors
    ///
    /// When it cannot be drawn or written.
    pub fn draw(&self, file: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        let bytes = base64::decode(shot["data"].as_str().context("a picture")?)?;
        std::fs::write(file, bytes).with_context(|| file.display().to_string())
    }
}

/// What an event of the protocol complains of, if it does.
fn complaint(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    let complains = match event["method"].as_str()? {
        "Runtime.exceptionThrown" | DIALOG => true,
        "Log.entryAdded" => parameters["entry"]["source"] == "security",
        _ => false,
    };
    complains.then(|| parameters.to_string())
}
