//! The flags of `selvage proxy`: for what is set often. Everything else has its variable.
//!
//! Flags are texts here; the settings they name give them their meaning. The token has no flag,
//! because other users of a machine can read command lines.

use std::path::PathBuf;

use super::LogFormat;

macro_rules! flags {
    ($($(#[$meta:meta])* $field:ident, $path:literal, $flag:literal, $value:literal;)+) => {
        /// Flags of a proxy. A flag beats the environment, which beats the file. Every setting
        /// is also a variable: `outbound.address` is `SELVAGE_OUTBOUND_ADDRESS`.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct ProxyArgs {
            /// The configuration (sidecar.yaml); without it, flags and variables say all
            /// [env: SELVAGE_CONFIG]
            #[arg(long, value_name = "FILE")]
            pub config: Option<PathBuf>,
            /// How logs are written to stderr [env: SELVAGE_LOG_FORMAT] [default: text]
            #[arg(long, value_name = "FORMAT")]
            pub log_format: Option<LogFormat>,
            $(
                $(#[$meta])*
                #[arg(long = $flag, value_name = $value)]
                pub $field: Option<String>,
            )+
        }

        impl ProxyArgs {
            /// The flag that sets the setting at `path`, and its value, if it was given.
            pub(super) fn flag(&self, path: &str) -> Option<(&'static str, &str)> {
                match path {
                    $($path => Some((concat!("--", $flag), self.$field.as_deref()?)),)+
                    _ => None,
                }
            }

            /// The settings that have a flag.
            #[cfg(test)]
            pub(super) const PATHS: &'static [&'static str] = &[$($path),+];
        }
    };
}

flags! {
    /// This replica's name, unique in its namespace
    workload_name, "workload.name", "workload-name", "NAME";
    /// The service it is a replica of
    workload_service, "workload.service", "workload-service", "NAME";
    /// Its namespace [default: default]
    workload_namespace, "workload.namespace", "workload-namespace", "NAME";
    /// Its service account: who it is to others [default: default]
    workload_service_account, "workload.serviceAccount", "workload-service-account", "NAME";
    /// The trust domain [default: mesh.local]
    trust_domain, "trustDomain", "trust-domain", "NAME";
    /// The control plane's gRPC address
    control_plane_address, "controlPlane.address", "control-plane-address", "HOST:PORT";
    /// Without a control plane: a file or folder of resources, watched
    static_resources, "static.resources", "static-resources", "PATH";
    /// Where other sidecars connect [default: 0.0.0.0:15008]
    inbound_address, "inbound.address", "inbound-address", "IP:PORT";
    /// The address to register, if it is not the one of the route to the control plane
    inbound_advertise, "inbound.advertise", "inbound-advertise", "IP:PORT";
    /// Where the application sends its requests [default: 127.0.0.1:15001]
    outbound_address, "outbound.address", "outbound-address", "IP:PORT";
    /// The admin port; loopback only [default: 127.0.0.1:15000]
    admin_address, "admin.address", "admin-address", "IP:PORT";
    /// The port of /metrics, /live and /ready [default: 0.0.0.0:15020]
    telemetry_address, "telemetry.address", "telemetry-address", "IP:PORT";
    /// The access log: off, text (stderr) or json (stdout) [default: off]
    access_log, "telemetry.accessLog", "access-log", "FORMAT";
    /// Whether OTEL_* variables are read: otel, or off where they are the application's [default: otel]
    traces, "telemetry.traces", "traces", "WHOSE";
    /// How long callers have to learn that it leaves [default: 1s]
    drain_delay, "drain.delay", "drain-delay", "DURATION";
    /// How long leaving may take in all [default: 25s]
    drain_timeout, "drain.timeout", "drain-timeout", "DURATION";
    /// Threads that carry traffic; 0 means two, or one on a single core [default: 0]
    workers, "workers", "workers", "N";
    /// Where the last good Snapshot and certificate are kept [default: /var/lib/selvage]
    state_dir, "stateDir", "state-dir", "PATH";
}
