//! Settings of the control plane: `control-plane.yaml`, the environment and
//! flags, in rising order of precedence, checked before anything is bound.
//! The only place that reads them; knows nothing of what they are used for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use selvage_certs::TrustDomain;
use selvage_core::scalar;
use serde::Deserialize;

/// The shortest life of a leaf that is signed. Below it a renewal at half of
/// life would come while the last one is still on its way.
pub const MIN_LEAF_TTL: Duration = Duration::from_secs(2);

/// How log lines look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `control-plane.yaml` as written: every key may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    trust_domain: Option<String>,
    data_dir: Option<PathBuf>,
    store: Option<StoreSetting>,
    grpc: GrpcFile,
    http: HttpFile,
    resources: Option<PathBuf>,
    ca: CaFile,
    registry: RegistryFile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum StoreSetting {
    Name(String),
    Etcd {
        #[allow(dead_code, reason = "parsed so that the refusal can name it")]
        etcd: Vec<String>,
    },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GrpcFile {
    address: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpFile {
    address: Option<String>,
    tls: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct CaFile {
    leaf_ttl: Option<scalar::Duration>,
    renew_grace: Option<scalar::Duration>,
    intermediate_ttl: Option<scalar::Duration>,
    root_ttl: Option<scalar::Duration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RegistryFile {
    lease_ttl: Option<scalar::Duration>,
}

/// Flags of `selvage control-plane`; each is an environment variable too.
#[derive(Debug, Clone, Default, Args)]
pub struct ControlPlaneArgs {
    /// Settings file (control-plane.yaml)
    #[arg(long, env = "SELVAGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Trust domain of all identities
    #[arg(long, env = "SELVAGE_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// Folder of the store, the CA's keys and the operator's token
    #[arg(long, env = "SELVAGE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Store: embedded
    #[arg(long, env = "SELVAGE_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// Address for proxies: gRPC over TLS
    #[arg(long, env = "SELVAGE_GRPC_ADDRESS", value_name = "IP:PORT")]
    pub grpc_address: Option<String>,
    /// Address for operators: API, metrics, service discovery
    #[arg(long, env = "SELVAGE_HTTP_ADDRESS", value_name = "IP:PORT")]
    pub http_address: Option<String>,
    /// TLS of the operators' address: off
    #[arg(long, env = "SELVAGE_HTTP_TLS", value_name = "MODE")]
    pub http_tls: Option<String>,
    /// Folder of resources, watched beside what is applied
    #[arg(long, env = "SELVAGE_RESOURCES", value_name = "FOLDER")]
    pub resources: Option<PathBuf>,
    /// Life of a workload's certificate
    #[arg(long, env = "SELVAGE_CA_LEAF_TTL", value_name = "DURATION")]
    pub ca_leaf_ttl: Option<scalar::Duration>,
    /// How long after its end a certificate may still be renewed
    #[arg(long, env = "SELVAGE_CA_RENEW_GRACE", value_name = "DURATION")]
    pub ca_renew_grace: Option<scalar::Duration>,
    /// Life of the intermediate certificate
    #[arg(long, env = "SELVAGE_CA_INTERMEDIATE_TTL", value_name = "DURATION")]
    pub ca_intermediate_ttl: Option<scalar::Duration>,
    /// Life of the root certificate
    #[arg(long, env = "SELVAGE_CA_ROOT_TTL", value_name = "DURATION")]
    pub ca_root_ttl: Option<scalar::Duration>,
    /// Life of a registration without a heartbeat
    #[arg(long, env = "SELVAGE_REGISTRY_LEASE_TTL", value_name = "DURATION")]
    pub registry_lease_ttl: Option<scalar::Duration>,
    /// Form of the log lines on stderr
    #[arg(long, env = "SELVAGE_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Lives of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaConfig {
    /// Of a workload's leaf; cut to its issuer's.
    pub leaf_ttl: Duration,
    /// How long after its end a leaf may be renewed by proof of its key.
    pub renew_grace: Duration,
    /// Of the intermediate; cut to the root's.
    pub intermediate_ttl: Duration,
    /// Of the root, which is created at the first start.
    pub root_ttl: Duration,
}

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneConfig {
    /// The trust domain of every identity issued.
    pub trust_domain: TrustDomain,
    /// Store, CA keys and operator token.
    pub data_dir: PathBuf,
    /// gRPC over TLS; port 0 is any.
    pub grpc_address: SocketAddr,
    /// Operator API; port 0 is any; loopback.
    pub http_address: SocketAddr,
    /// A folder of resources, watched.
    pub resources: Option<PathBuf>,
    /// Lives of certificates.
    pub ca: CaConfig,
    /// Life of a registration without a heartbeat.
    pub lease_ttl: Duration,
}

impl ControlPlaneConfig {
    /// What holds where nothing is said: loopback, fixed ports, `./selvage-data`.
    ///
    /// # Errors
    /// None in practice: the defaults are valid.
    pub fn defaults() -> anyhow::Result<Self> {
        Self::merge(File::default(), &ControlPlaneArgs::default())
    }

    /// Reads the file named by the flags, if any, and lets flags and
    /// environment win over it.
    ///
    /// # Errors
    /// The file cannot be read, does not parse (the diagnostics say where), or
    /// a setting is refused or not supported yet.
    pub fn load(args: &ControlPlaneArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        Self::merge(file, args)
    }

    fn merge(file: File, args: &ControlPlaneArgs) -> anyhow::Result<Self> {
        check_store(file.store.as_ref(), args.store.as_deref())?;
        let tls = args.http_tls.clone().or(file.http.tls);
        if let Some(mode) = tls.filter(|mode| mode != "off") {
            bail!("http.tls: {mode}: not supported yet (expected: off)");
        }
        let trust_domain = args
            .trust_domain
            .clone()
            .or(file.trust_domain)
            .unwrap_or_else(|| "mesh.local".to_owned());
        let trust_domain = TrustDomain::parse(&trust_domain)
            .with_context(|| format!("trustDomain: {trust_domain:?}"))?;
        let grpc_address = address(
            "grpc.address",
            args.grpc_address.clone().or(file.grpc.address),
            "127.0.0.1:15010",
        )?;
        let http_address = address(
            "http.address",
            args.http_address.clone().or(file.http.address),
            "127.0.0.1:15014",
        )?;
        if !http_address.ip().is_loopback() {
            bail!(
                "http.address: {http_address} is not a loopback address, and http.tls is off: \
                 the operator's token would cross the network in the clear"
            );
        }
        let seconds = |flag: Option<scalar::Duration>, file: Option<scalar::Duration>, default| {
            flag.or(file)
                .map_or(Duration::from_secs(default), Duration::from)
        };
        let day = 24 * 3600;
        let ca = CaConfig {
            leaf_ttl: seconds(args.ca_leaf_ttl, file.ca.leaf_ttl, day),
            renew_grace: seconds(args.ca_renew_grace, file.ca.renew_grace, day),
            intermediate_ttl: seconds(args.ca_intermediate_ttl, file.ca.intermediate_ttl, 30 * day),
            root_ttl: seconds(args.ca_root_ttl, file.ca.root_ttl, 365 * day),
        };
        if ca.leaf_ttl < MIN_LEAF_TTL {
            bail!("ca.leafTtl: at least {}s", MIN_LEAF_TTL.as_secs());
        }
        if ca.leaf_ttl > ca.intermediate_ttl || ca.intermediate_ttl > ca.root_ttl {
            bail!(
                "ca: leafTtl must not exceed intermediateTtl, nor that rootTtl: no certificate outlives its issuer"
            );
        }
        let lease_ttl = seconds(args.registry_lease_ttl, file.registry.lease_ttl, 15);
        if lease_ttl < Duration::from_secs(1) {
            bail!("registry.leaseTtl: at least 1s");
        }
        let data_dir = args.data_dir.clone().or(file.data_dir);
        Ok(Self {
            trust_domain,
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("./selvage-data")),
            grpc_address,
            http_address,
            resources: args.resources.clone().or(file.resources),
            ca,
            lease_ttl,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    selvage_core::config::parse(&name, &text)
        .map_err(|found| anyhow::anyhow!("{name} is refused\n{}", found.render(false).trim_end()))
}

fn check_store(file: Option<&StoreSetting>, flag: Option<&str>) -> anyhow::Result<()> {
    let written = flag.or(file.map(|setting| match setting {
        StoreSetting::Name(name) => name.as_str(),
        StoreSetting::Etcd { .. } => "etcd",
    }));
    match written.unwrap_or("embedded") {
        "embedded" => Ok(()),
        "etcd" => bail!("store: etcd: not supported yet (expected: embedded)"),
        other => bail!("store: {other:?} is not known (expected: embedded)"),
    }
}

fn address(key: &str, written: Option<String>, default: &str) -> anyhow::Result<SocketAddr> {
    let text = written.unwrap_or_else(|| default.to_owned());
    text.parse()
        .with_context(|| format!("{key}: expected IP:PORT, found {text:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    fn merged(yaml: &str, args: &ControlPlaneArgs) -> anyhow::Result<ControlPlaneConfig> {
        let file = selvage_core::config::parse("control-plane.yaml", yaml)
            .map_err(|found| anyhow::anyhow!("{}", found.render(false)))?;
        ControlPlaneConfig::merge(file, args)
    }

    #[test]
    fn defaults_work_on_a_laptop() {
        let config = ControlPlaneConfig::defaults().unwrap();
        assert_eq!(config.grpc_address.port(), 15010);
        assert_eq!(config.http_address.port(), 15014);
        assert_eq!(config.ca.leaf_ttl, Duration::from_secs(86400));
        assert_eq!(config.lease_ttl, Duration::from_secs(15));
    }

    #[test]
    fn a_flag_beats_the_file() {
        let yaml = "trustDomain: a.test\ngrpc: { address: 127.0.0.1:1 }\nca: { leafTtl: 20s }\n";
        let args = ControlPlaneArgs {
            trust_domain: Some("b.test".into()),
            ..ControlPlaneArgs::default()
        };
        let config = merged(yaml, &args).unwrap();
        assert_eq!(config.trust_domain.as_str(), "b.test");
        assert_eq!(config.grpc_address.port(), 1);
        assert_eq!(config.ca.leaf_ttl, Duration::from_secs(20));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (yaml, says) in [
            ("store: { etcd: [https://a] }", "not supported yet"),
            ("store: embeded", "expected: embedded"),
            ("http: { tls: on-demand }", "not supported yet"),
            ("http: { address: 0.0.0.0:15014 }", "not a loopback"),
            ("http: { address: here }", "expected IP:PORT"),
            ("trustDomain: Mesh", "trustDomain"),
            ("ca: { leafTtl: 60d }", "outlives its issuer"),
            ("ca: { leafTtl: 0s }", "at least 2s"),
            ("registry: { leaseTtl: 10ms }", "at least 1s"),
            ("registry: { leaseTTL: 10s }", "leaseTtl"),
        ] {
            let error = merged(yaml, &ControlPlaneArgs::default()).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{yaml}: {error:#}");
        }
    }
}
