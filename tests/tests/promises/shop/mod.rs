//! The shop of the examples: real services that know nothing of the mesh, and lose nothing to a
//! replica that fails.

mod ends; // nothing outlives it
mod faults; // what a customer sees
mod readme; // what is written is so
mod records; // every hop by name and encrypted

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use selvage_tests::body;
use selvage_tests::client::{self, Answer, Http1};
use selvage_tests::process::{self, Process, binary};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// All replicas of inventory.
const REPLICAS: [&str; 3] = ["inventory-1", "inventory-2", "inventory-3"];

/// How long its Python packages may take to be fetched, where they are not there yet.
const FETCH: Duration = Duration::from_secs(180);

/// The workspace, in which commands of its READMEs are run.
fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in it").to_path_buf()
}

/// `command` in the workspace, with the binaries and the folder for what is built of this run.
fn prepared(mut command: Command) -> Command {
    let inventory = binary("shop-inventory");
    let folder = inventory.parent().expect("a binary lies in a folder");
    let folder = folder.canonicalize().expect("it was there just now");
    command
        .current_dir(workspace())
        .env("SELVAGE_BIN_DIR", folder)
        .env("CARGO_TARGET_DIR", process::target())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// `examples/shop/run` with `arguments`.
fn run(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace().join("examples/shop/run"));
    command.args(arguments);
    prepared(command)
}

/// What a command printed, on both streams; it must succeed within `limit`.
async fn output(what: &str, mut command: Command, limit: Duration) -> String {
    let output = wait::within(what, limit, command.output()).await;
    let output = output.unwrap_or_else(|error| panic!("{what} cannot be run: {error}"));
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success(),
        "{what}: {}\n{}",
        output.status,
        said.concat()
    );
    said.concat()
}

/// Fetches what the shop needs, so that no wait for a shop is a wait for the network.
async fn prepare() {
    output("run --prepare", run(&["--prepare"]), FETCH).await;
}

/// A shop that is open; dropped, it ends.
struct Shop {
    process: Process,
    /// What it says of where everything is.
    running: Value,
    folder: TempDir,
}

impl Shop {
    async fn open() -> Self {
        prepare().await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // PostgreSQL has a user of its own.
        let through = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), through).expect("it is ours");
        let place = folder.path().join("shop");
        let text = place.to_str().expect("a path of a test is text");
        let mut process = Process::start("the shop", run(&["--dir", text]));
        let running = place.join("running.json");
        let took = wait::until("the shop's opening", 6 * PATIENCE, async || {
            assert!(!process.has_ended(), "the shop does not open");
            running.exists()
        })
        .await;
        println!("open after {took:?}");
        let text = std::fs::read_to_string(&running).expect("it was there just now");
        Self {
            process,
            running: serde_json::from_str(&text).expect("it is JSON"),
            folder,
        }
    }

    /// Breaks or heals, and returns when that has taken effect.
    async fn tell(&self, words: &[&str]) {
        let place = self.folder.path().join("shop");
        let place = place.to_str().expect("a path of a test is text");
        let command = run(&[&["--dir", place], words].concat());
        output(&words.join(" "), command, 3 * PATIENCE).await;
    }

    fn gateway(&self) -> SocketAddr {
        let url = self.running["gateway"].as_str().expect("a URL");
        let address = url.trim_start_matches("http://");
        address.parse().expect("an address")
    }

    /// What a GET of the gateway answers.
    async fn get(&self, path: &str) -> Answer {
        client::get(self.gateway(), &self.gateway().to_string(), path).await
    }

    /// What the shop has now.
    ///
    /// # Panics
    /// When the gateway does not answer 200.
    async fn products(&self) -> Value {
        let answer = self.get("/products").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("the gateway speaks JSON")
    }

    /// Orders something.
    async fn order(&self, sku: &str, quantity: u32) -> Answer {
        let body = json!({ "sku": sku, "quantity": quantity }).to_string();
        let authority = self.gateway().to_string();
        let mut request = client::request(Method::POST, &authority, "/orders", body::full(body));
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert("content-type", json);
        let mut connection = Http1::connect(self.gateway()).await;
        let answer = connection.call(request).await;
        answer.unwrap_or_else(|error| panic!("POST /orders: {error}"))
    }

    /// The sidecars, as the shop tells of them.
    fn sidecars(&self) -> Vec<Value> {
        let list = self.running["sidecars"].as_array();
        list.cloned().expect("a list")
    }
}

/// How much is left of a product.
fn stock(products: &Value, sku: &str) -> u64 {
    let all = products["products"].as_array().expect("a list");
    let one = all.iter().find(|one| one["sku"] == sku);
    let left = one.and_then(|one| one["stock"].as_u64());
    left.unwrap_or_else(|| panic!("no stock of {sku}: {products}"))
}

/// Whether nothing is missing.
fn is_whole(products: &Value) -> bool {
    products["missing"] == json!([])
}
