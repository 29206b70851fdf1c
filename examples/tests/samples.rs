//! The sample services and the load as processes of their own, wired to each other without a mesh:
//! what the demo then puts sidecars between. It refuses to know the demo itself.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// One role of the demo's binary; killed when it goes out of scope.
struct Role {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Role {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command
            .arg("role")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the demo's binary starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self {
            child,
            stdin,
            stdout,
        }
    }

    fn service(name: &str, grpc: bool) -> (Self, Vec<SocketAddr>) {
        let mut args = vec!["service", "--name", name, "--workload", name];
        args.extend(
            grpc.then_some(["--grpc", "127.0.0.1:0"])
                .into_iter()
                .flatten(),
        );
        let mut role = Self::start(&args);
        let addresses = (0..=usize::from(grpc)).map(|_| {
            let event = role.until("listening");
            event["address"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("an address")
        });
        let addresses = addresses.collect();
        (role, addresses)
    }

    /// The next event of a name. The end of stdout fails the test instead of hanging it.
    fn until(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).expect("readable") > 0,
                "ended before {name}"
            );
            let event: Value = serde_json::from_str(&line).expect("stdout carries JSON lines");
            if event["event"] == name {
                return event;
            }
        }
    }

    fn order(&mut self, order: &str, answer: &str) -> Value {
        writeln!(self.stdin.as_mut().expect("not ended"), "{order}").expect("the role reads");
        self.until(answer)
    }
}

struct Shop {
    gateway: Role,
    _orders: Role,
    inventory: Role,
    entry: Vec<SocketAddr>,
    inventory_http: SocketAddr,
}

fn shop() -> Shop {
    let (inventory, at) = Role::service("inventory", true);
    let (mut orders, orders_at) = Role::service("orders", false);
    let (mut gateway, entry) = Role::service("gateway", true);
    orders.order(&format!("upstream inventory:80 {}", at[0]), "upstream");
    gateway.order(&format!("upstream orders:80 {}", orders_at[0]), "upstream");
    gateway.order(&format!("upstream inventory:80 {}", at[0]), "upstream");
    gateway.order(&format!("upstream inventory:9090 {}", at[1]), "upstream");
    Shop {
        gateway,
        _orders: orders,
        inventory,
        entry,
        inventory_http: at[0],
    }
}

fn load(shop: &Shop) -> Role {
    let (http, grpc) = (
        format!("--http={}", shop.entry[0]),
        format!("--grpc={}", shop.entry[1]),
    );
    Role::start(&["load", &http, &grpc, "--rate", "300", "--seed", "3"])
}

#[test]
fn every_kind_of_request_is_answered() {
    let shop = shop();
    let mut load = load(&shop);
    load.until("second");
    let seen = load.order("finish", "loadFinished")["seen"].clone();
    assert_eq!(seen["failures"], 0, "{seen}");
    let requests = |kind: &str| seen["byKind"][kind]["requests"].as_u64().expect("counted");
    let all = seen["requests"].as_u64().expect("counted");
    assert!(all >= 250, "{seen}");
    assert!(
        (requests("post") + requests("grpc")) * 10 >= all * 3,
        "{seen}"
    );
}

#[test]
fn a_service_that_answers_503_is_counted_in_its_phase() {
    let mut shop = shop();
    let mut load = load(&shop);
    load.until("second");
    load.order("phase status503", "phase");
    shop.inventory.order("mode status503", "mode");
    let failure = load.until("failure");
    assert_eq!(failure["phase"], "status503", "{failure}");
    shop.inventory.order("mode healthy", "mode");
    load.order("phase healthy", "phase");
    let seen = load.order("finish", "loadFinished")["seen"].clone();
    assert_eq!(seen["byPhase"]["healthy"]["failures"], 0, "{seen}");
    assert_eq!(
        seen["failures"], seen["byPhase"]["status503"]["failures"],
        "{seen}"
    );
}

#[test]
fn refusing_is_refused_connections_and_the_port_comes_back() {
    let mut shop = shop();
    TcpStream::connect(shop.inventory_http).expect("healthy services listen");
    shop.inventory.order("mode refuse", "mode");
    // The listener closes right after the order was answered.
    while TcpStream::connect(shop.inventory_http).is_ok() {}
    shop.inventory.order("mode healthy", "mode");
    while TcpStream::connect(shop.inventory_http).is_err() {}
}

#[test]
fn the_end_of_stdin_ends_a_process() {
    let mut shop = shop();
    shop.gateway.stdin = None;
    let status = shop.gateway.child.wait().expect("it can be waited for");
    assert!(status.success(), "{status}");
}
