//! The demo's mesh: its processes started in order, wired, watched, and started again with what they need.
//!
//! It knows files, processes and orders. It refuses to know the load, the schedule and the screen.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fleet::{Fleet, Notice};
use crate::http::Http;
use crate::operator::Operator;
use crate::role::service::{check_answer, check_request};
use crate::topology::{self, ANY, GRPC, HTTP, LOAD, Workload};

/// The control plane's name among the processes.
pub(crate) const CONTROL_PLANE: &str = "control-plane";
/// How long one process may take to listen, and the whole mesh to answer.
const START: Duration = Duration::from_secs(20);
/// Between two looks at something that is not ready.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(3);
/// Answers in a row of each kind after which the mesh is taken to be warm.
const WARM: usize = 12;
/// A child that ends this soon after its start has not really run …
const RAN: Duration = Duration::from_secs(2);
/// … and this many times in a row is a failure of the demo.
const VAIN_STARTS: u32 = 20;
/// How long the dead stay dead: long enough to be seen, and well below a second.
const DEAD: Duration = Duration::from_millis(300);

/// A running mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Its processes.
    pub(crate) fleet: Fleet,
    /// Its operator API.
    pub(crate) operator: Operator,
    /// Its workloads.
    pub(crate) workloads: Vec<Workload>,
    /// How often a process was started again.
    pub(crate) restarts: u64,
    folder: PathBuf,
    grpc: SocketAddr,
    vain: u32,
    http: Http,
}

impl Mesh {
    /// Starts everything but the load and waits until requests are answered.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        let mut fleet = Fleet::new(logs)?;
        let workloads = topology::workloads();
        // The services need nothing: they start beside the control plane.
        for workload in workloads
            .iter()
            .filter(|workload| workload.serves.is_some())
        {
            fleet.start(&workload.name, service_args(workload, ANY, ANY))?;
        }
        let data = folder.join("data");
        start_control_plane(&mut fleet, folder, ANY, ANY)?;
        let names = ["grpc", "http"].map(str::to_owned);
        fleet.bound(CONTROL_PLANE, &names, START).await?;
        let address = |name| fleet.address(CONTROL_PLANE, name).context("was waited for");
        let (grpc, http) = (address("grpc")?, address("http")?);
        // Started again, it must be found where it was.
        start_files(folder, &data, grpc, http)?;
        let token = data.join("operator.token");
        let token = std::fs::read_to_string(&token)
            .with_context(|| format!("cannot read {}", token.display()))?;
        let operator = Operator::new(http, &token);
        operator
            .apply(topology::RESOURCES)
            .await
            .context("the demo's resources were refused")?;

        let mut mesh = Self {
            fleet,
            operator,
            workloads,
            restarts: 0,
            folder: folder.to_owned(),
            grpc,
            vain: 0,
            http: Http::http1(LOOK),
        };
        for workload in mesh.workloads.clone() {
            mesh.fleet
                .bound(&workload.name, &workload.app_ports(), START)
                .await?;
            mesh.write_token(&workload).await?;
            mesh.start_sidecar(&workload)?;
        }
        for workload in mesh.workloads.clone() {
            mesh.fleet
                .bound(&workload.sidecar(), &workload.sidecar_ports(), START)
                .await?;
            mesh.wire(&workload).await;
        }
        tokio::time::timeout(START, mesh.wait_until_it_answers())
            .await
            .unwrap_or_else(|_| bail!("the mesh did not answer within {START:?}"))?;
        Ok(mesh)
    }

    async fn write_token(&self, workload: &Workload) -> anyhow::Result<()> {
        let token = self.operator.join_token(workload.service).await?;
        let path = self.folder.join(format!("{}.token", workload.name));
        std::fs::write(&path, token).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a sidecar with the addresses of its first start, where there was one.
    fn start_sidecar(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let name = workload.sidecar();
        let state = self.folder.join(format!("{}.state", workload.name));
        std::fs::create_dir_all(&state)?;
        let config = topology::sidecar_config(
            workload,
            self.grpc,
            &self.folder.join(format!("{}.token", workload.name)),
            &state,
            |port| self.fleet.address(&name, port),
            |port| self.fleet.address(&workload.name, port),
        );
        let path = self.folder.join(format!("{name}.yaml"));
        write_json(&path, &config)?;
        self.fleet.start(
            &name,
            vec!["sidecar".into(), "--config".into(), path.into()],
        )
    }

    /// Tells a service where its sidecar listens for it.
    pub(crate) async fn wire(&mut self, workload: &Workload) {
        if workload.serves.is_none() {
            return;
        }
        for &(service, port) in workload.calls {
            let listener = topology::listener(service, port);
            if let Some(address) = self.fleet.address(&workload.sidecar(), &listener) {
                self.fleet
                    .order(
                        &workload.name,
                        &format!("upstream {service}:{port} {address}"),
                    )
                    .await;
            }
        }
    }

    /// Where the load sends HTTP, and gRPC.
    pub(crate) fn entry(&self, port: u16) -> anyhow::Result<SocketAddr> {
        let listener = topology::listener("gateway", port);
        let sidecar = format!("{LOAD}.sidecar");
        self.fleet
            .address(&sidecar, &listener)
            .with_context(|| format!("{sidecar} did not bind {listener}"))
    }

    /// Every sidecar ready, every replica registered, and requests of each kind answered in a row.
    async fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        for workload in self.workloads.clone() {
            let url = self.telemetry(&workload, "/ready")?;
            while !self
                .http
                .get(&url)
                .await
                .is_ok_and(|answer| answer.status.is_success())
            {
                self.look_again().await?;
            }
        }
        while !all_registered(&self.operator.services().await?) {
            self.look_again().await?;
        }
        let (http, grpc) = (self.entry(HTTP)?, self.entry(GRPC)?);
        let h2 = Http::http2(LOOK);
        let mut answered = 0;
        while answered < WARM {
            let mut good = true;
            for path in ["/orders/1", "/stock/1"] {
                let answer = self.http.get(&format!("http://{http}{path}")).await;
                good &= answer.is_ok_and(|answer| answer.status.is_success());
            }
            let message = crate::grpc::CheckRequest {
                sku: "warm".to_owned(),
            };
            let answer = h2.send(check_request(grpc, &message)).await;
            good &= answer.is_ok_and(|answer| check_answer(&answer).is_ok());
            answered = if good { answered + 1 } else { 0 };
            if !good {
                self.look_again().await?;
            }
        }
        Ok(())
    }

    /// Lets a little time pass; a process that ends in it is an error.
    async fn look_again(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + LOOK_AGAIN;
        while let Ok(notice) = tokio::time::timeout_at(until, self.fleet.next()).await {
            if let Notice::Exited { child, status } = notice {
                bail!(
                    "{child} ended ({status}):\n{}",
                    self.fleet.last_words(&child)
                );
            }
        }
        Ok(())
    }

    /// A URL of a sidecar's telemetry port.
    pub(crate) fn telemetry(&self, workload: &Workload, path: &str) -> anyhow::Result<String> {
        let sidecar = workload.sidecar();
        let address = self.fleet.address(&sidecar, "telemetry");
        Ok(format!(
            "http://{}{path}",
            address.with_context(|| format!("{sidecar} has no telemetry port"))?
        ))
    }

    /// Starts a child again that has ended, on the ports that it had.
    pub(crate) async fn revive(&mut self, child: &str) -> anyhow::Result<()> {
        self.vain = if self.fleet.age(child) < RAN {
            self.vain + 1
        } else {
            0
        };
        if self.vain > VAIN_STARTS {
            bail!(
                "{child} ends as soon as it is started:\n{}",
                self.fleet.last_words(child)
            );
        }
        tokio::time::sleep(DEAD).await;
        self.restarts += 1;
        let workloads = self.workloads.clone();
        if let Some(workload) = workloads
            .iter()
            .find(|workload| workload.sidecar() == child)
        {
            self.start_sidecar(workload)?;
        } else if let Some(workload) = workloads.iter().find(|workload| workload.name == child) {
            let address = |name| self.fleet.address(child, name).unwrap_or(ANY);
            self.fleet.start(
                child,
                service_args(workload, address("http"), address("grpc")),
            )?;
            self.wire(workload).await;
        } else {
            self.fleet.start_again(child)?;
        }
        Ok(())
    }

    /// What the `running` event says.
    pub(crate) fn running(&self) -> Value {
        let address = |process: &str, port: &str| {
            self.fleet
                .address(process, port)
                .map(|address| address.to_string())
        };
        let pid = |process: &str| self.fleet.process(process).map(|(pid, _)| pid);
        let proxies: Vec<Value> = self
            .workloads
            .iter()
            .map(|workload| {
                let sidecar = workload.sidecar();
                json!({
                    "workload": workload.name,
                    "pid": pid(&sidecar),
                    "outbound": address(&sidecar, "outbound"),
                    "telemetry": address(&sidecar, "telemetry"),
                    "admin": address(&sidecar, "admin"),
                    "servicePid": workload.serves.and_then(|_| pid(&workload.name)),
                })
            })
            .collect();
        json!({
            "event": "running",
            "dashboard": null,
            "operator": { "url": self.operator.url(), "token": self.operator.token() },
            "proxies": proxies,
            "controlPlane": { "pid": pid(CONTROL_PLANE) },
        })
    }
}

fn service_args(workload: &Workload, http: SocketAddr, grpc: SocketAddr) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["service".into(), "--name".into(), workload.service.into()];
    args.extend([
        "--workload".into(),
        workload.name.clone().into(),
        "--http".into(),
        http.to_string().into(),
    ]);
    if workload.serves == Some(true) {
        args.extend(["--grpc".into(), grpc.to_string().into()]);
    }
    args
}

fn start_files(
    folder: &Path,
    data: &Path,
    grpc: SocketAddr,
    http: SocketAddr,
) -> anyhow::Result<PathBuf> {
    let path = folder.join("control-plane.yaml");
    write_json(&path, &topology::control_plane_config(data, grpc, http))?;
    Ok(path)
}

fn start_control_plane(
    fleet: &mut Fleet,
    folder: &Path,
    grpc: SocketAddr,
    http: SocketAddr,
) -> anyhow::Result<()> {
    let path = start_files(folder, &folder.join("data"), grpc, http)?;
    fleet.start(
        CONTROL_PLANE,
        vec!["control-plane".into(), "--config".into(), path.into()],
    )
}

fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Whether `/api/v1/services` knows as many healthy workloads of each service as there are replicas.
fn all_registered(services: &Value) -> bool {
    let known = services["items"].as_array().map_or(&[][..], Vec::as_slice);
    topology::SERVICES.iter().all(|service| {
        known
            .iter()
            .filter(|known| known["name"] == service.name)
            .flat_map(|known| known["workloads"].as_array().into_iter().flatten())
            .filter(|workload| workload["healthy"] == true)
            .count()
            == service.replicas
    })
}
