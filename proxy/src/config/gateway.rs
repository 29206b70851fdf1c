//! The section `gateway`, which makes a proxy a gateway instead of a sidecar:
//! as it is written, what is wrong with it, and its plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use selvage_policy::forwarded::TRUSTED;
use serde::{Deserialize, Deserializer};

use super::check::{Findings, is_label, not_a_label};
use super::file::{File, Inbound, Outbound, Text};
use super::values;

/// Most ports that can be bound elsewhere than where the listener stands: a Gateway has no more listeners.
const PORTS: usize = 64;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) address: Option<Text<IpAddr>>,
    ports: BTreeMap<Text<u16>, u16>,
    pub(super) trusted_hops: Option<usize>,
    /// Whether the section is there, however empty.
    #[serde(skip)]
    written: bool,
    /// Where its file stands.
    #[serde(skip)]
    pub(super) folder: PathBuf,
}

/// Reads the section, and notes that it is there.
pub(super) fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Gateway, D::Error> {
    let mut gateway = Gateway::deserialize(deserializer)?;
    gateway.written = true;
    Ok(gateway)
}

impl FromStr for Text<IpAddr> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected an address such as 0.0.0.0, found `{text}`");
        text.parse().map(Self).map_err(|_| expected())
    }
}

impl FromStr for Text<u16> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a port such as 443, found `{text}`");
        text.parse().map(Self).map_err(|_| expected())
    }
}

impl Gateway {
    /// Whether this is to be a gateway.
    pub(super) const fn is_wanted(&self) -> bool {
        let Self {
            name,
            namespace,
            address,
            ports: _,
            trusted_hops,
            written,
            folder: _,
        } = self;
        *written
            || name.is_some()
            || namespace.is_some()
            || address.is_some()
            || trusted_hops.is_some()
    }

    /// The namespace, of which there is one: that of the Gateway is that of the workload.
    pub(super) fn namespace(file: &File) -> Option<&str> {
        let gateway = &file.gateway;
        let named = gateway.namespace.as_deref();
        named.or(file.workload.namespace.as_deref())
    }

    /// Plain values of a section without findings.
    pub(super) fn build(self, namespace: String) -> Option<values::Gateway> {
        self.is_wanted().then(|| values::Gateway {
            namespace,
            name: self.name.expect("it was checked"),
            address: self
                .address
                .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |text| text.0),
            ports: self
                .ports
                .into_iter()
                .map(|(port, bound)| (port.0, bound))
                .collect(),
            trusted_hops: self.trusted_hops.unwrap_or_default(),
            folder: self.folder,
        })
    }
}

/// Everything that is wrong with a gateway's settings, taken by themselves and with those of a sidecar.
pub(super) fn check(file: &File, fixed: &[(String, SocketAddr)], found: &mut Findings) {
    let gateway = &file.gateway;
    if !gateway.is_wanted() {
        return;
    }
    for (path, there) in [
        ("inbound", is_inbound(&file.inbound)),
        ("outbound", is_outbound(&file.outbound)),
    ] {
        if there {
            let help = "a gateway's listeners are those of its Gateway resource";
            found.add_with_help(path, "contradicts `gateway`: give one of the two", help);
        }
    }
    if gateway.name.is_none() {
        found.add_with_help(
            "gateway.name",
            "is missing",
            "the Gateway resource it serves",
        );
    }
    for (path, name) in [
        ("gateway.name", &gateway.name),
        ("gateway.namespace", &gateway.namespace),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !is_label(name)) {
            found.add(path, not_a_label(name));
        }
    }
    if let (Some(own), Some(workload)) = (&gateway.namespace, &file.workload.namespace)
        && own != workload
    {
        found.add(
            "gateway.namespace",
            format!(
                "is not the workload's, `{workload}`: a Gateway is served from its own namespace"
            ),
        );
    }
    // The control plane tells a Gateway's keys to nobody else.
    if let (Some(own), Some(service)) = (&gateway.name, &file.workload.service)
        && file.control_plane.address.is_some()
        && own != service
    {
        found.add(
            "workload.service",
            format!("is not the Gateway's name, `{own}`: leave it out"),
        );
    }
    if gateway.trusted_hops.is_some_and(|hops| hops > TRUSTED) {
        found.add("gateway.trustedHops", format!("at most {TRUSTED}"));
    }
    check_ports(gateway, fixed, found);
}

fn check_ports(gateway: &Gateway, fixed: &[(String, SocketAddr)], found: &mut Findings) {
    if gateway.ports.len() > PORTS {
        found.add("gateway.ports", format!("at most {PORTS}"));
    }
    let mut taken = BTreeSet::new();
    for (port, bound) in &gateway.ports {
        let path = format!("gateway.ports.{}", port.0);
        if port.0 == 0 {
            found.add(&path, "no listener has port 0");
        }
        if *bound != 0 && !taken.insert(*bound) {
            found.add(&path, format!("{bound} is already taken by another port"));
        }
        // What else is bound, is bound before.
        let same = |(_, other): &&(String, SocketAddr)| *bound != 0 && other.port() == *bound;
        if let Some((before, _)) = fixed.iter().find(same) {
            found.add(&path, format!("{bound} is already taken by `{before}`"));
        }
    }
}

fn is_inbound(inbound: &Inbound) -> bool {
    let Inbound {
        address,
        advertise,
        tls,
        ports,
    } = inbound;
    address.is_some() || advertise.is_some() || tls.is_some() || !ports.is_empty()
}

fn is_outbound(outbound: &Outbound) -> bool {
    let Outbound { address, listeners } = outbound;
    address.is_some() || !listeners.is_empty()
}
