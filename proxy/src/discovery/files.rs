//! Static mode: the same road with a shorter wire. Resources from a file or a
//! folder, watched; what does not parse leaves what was running in place.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use selvage_certs::TrustDomain;
use selvage_core::diagnostic::Diagnostics;
use selvage_core::registry::WorkloadKey;
use selvage_core::world::{Apply, World};
use selvage_core::{parse, resource, view};
use selvage_policy::snapshot::{ServiceName, Snapshot, WorkloadName};

use super::{Discovery, decode};

/// How often the folder is looked at; a change takes effect within a second.
const INTERVAL: Duration = Duration::from_millis(250);
/// A file that changed within this time may change again under the same stamp: file systems count in coarse steps.
const SETTLED: Duration = Duration::from_secs(2);
/// More than this is not a folder of policies.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why there is no Snapshot.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResources {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More than a folder of policies can be.
    #[error("{}: more than 64 MiB of resources", path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
    },
    /// What the documents say is refused; rendered diagnostics.
    #[error("{0}")]
    Refused(String),
}

/// Name and text of each source, in the order of their names.
pub type Sources = Vec<(String, String)>;

/// The file itself, or all `*.yaml`, `*.yml` and `*.json` of a folder, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, InvalidResources> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
        let file = entry.map_err(unreadable(path))?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> InvalidResources + use<> {
    let path = path.to_owned();
    move |source| InvalidResources::Unreadable { path, source }
}

/// Reads a file, or all `*.yaml`, `*.yml` and `*.json` of a folder.
pub fn read(path: &Path) -> Result<Sources, InvalidResources> {
    let files = files(path)?;
    let mut total = 0;
    let mut sources = Vec::with_capacity(files.len());
    for file in files {
        total += std::fs::metadata(&file).map_err(unreadable(&file))?.len();
        if total > MAX_BYTES {
            return Err(InvalidResources::TooLarge {
                path: path.to_owned(),
            });
        }
        let text = std::fs::read_to_string(&file).map_err(unreadable(&file))?;
        sources.push((file.display().to_string(), text));
    }
    Ok(sources)
}

/// What another content of a file cannot share with this one.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    /// Of its content or of what is said about it: seconds and nanoseconds since the epoch.
    changed: (i64, i64),
}

/// The stamps of all files; `None` where one has not settled yet, or cannot be seen.
fn stamps(path: &Path, now: SystemTime) -> Option<Vec<Stamp>> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let settled = i64::try_from(now.checked_sub(SETTLED)?.as_secs()).ok()?;
    let stamp = |path: PathBuf| {
        let about = std::fs::metadata(&path).ok()?;
        (about.ctime() < settled).then(|| Stamp {
            path,
            device: about.dev(),
            inode: about.ino(),
            length: about.size(),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    };
    files(path).ok()?.into_iter().map(stamp).collect()
}

/// Who learns from files.
#[derive(Debug, Clone)]
pub struct Learner {
    /// Its workload.
    pub workload: WorkloadName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The Gateway it serves.
    pub gateway: Option<ServiceName>,
}

/// From documents to the view of one workload.
pub fn load(
    sources: &Sources,
    learner: &Learner,
    revision: u64,
) -> Result<Snapshot, InvalidResources> {
    let Learner {
        workload,
        trust_domain,
        gateway,
    } = learner;
    let gateway = gateway.as_ref();
    let gateway = gateway.map(|it| resource::ServiceName::new(&it.namespace, &it.name));
    let refused = |diagnostics: Diagnostics| InvalidResources::Refused(diagnostics.render(false));
    let sources = sources
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    let documents = parse::parse_all(sources).map_err(refused)?;
    let own = resource::ServiceName::new(&workload.namespace, &workload.service);
    // Our own service is there, documented or not; nobody calls a gateway.
    let own_service = gateway.is_none().then(|| own.clone());
    let registered: BTreeSet<_> = own_service.into_iter().collect();
    let apply = Apply {
        first_stamp: 0,
        registered: &registered,
        strict: false,
    };
    let mut world = World::new(trust_domain.clone());
    let change = world.apply(documents, apply).map_err(refused)?;
    if !change.warnings.is_empty() {
        tracing::warn!("resources\n{}", change.warnings.render(false));
    }
    let key = WorkloadKey::new(&workload.namespace, &workload.name);
    let resources = view::static_view(&world, &key, &own, gateway.as_ref());
    let snapshot = decode::snapshot(workload, revision, resources.iter()).map_err(|refused| {
        let lines: Vec<String> = refused.iter().map(|(_, error)| error.to_string()).collect();
        InvalidResources::Refused(lines.join("\n"))
    })?;
    Ok(snapshot)
}

/// Watches the folder for as long as it is polled. `seen`: what the first
/// Snapshot, revision 1, was made from. Files are read again only where their
/// stamps say that they may have changed.
pub async fn watch(path: PathBuf, learner: Learner, discovery: Arc<Discovery>, mut seen: Sources) {
    let mut revision = 1;
    let mut read_under = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        // Taken before the reading: what changes during it has another one afterwards.
        let stamps = stamps(&path, SystemTime::now());
        if stamps.is_some() && stamps == read_under {
            continue;
        }
        read_under = stamps;
        let sources = match read(&path) {
            Ok(sources) if sources != seen => sources,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "resources");
                read_under = None;
                continue;
            }
        };
        revision += 1;
        match load(&sources, &learner, revision) {
            Ok(snapshot) => {
                tracing::info!(revision, "resources changed");
                discovery.swap(snapshot, HashSet::new());
            }
            Err(error) => {
                tracing::error!("resources refused; what was running goes on\n{error}");
            }
        }
        seen = sources;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_believed_to_be_the_same_once_its_stamp_has_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mesh.yaml");
        std::fs::write(&file, "kind: MeshConfig").expect("written");
        let now = SystemTime::now();
        assert_eq!(stamps(folder.path(), now), None, "it may change again");
        let later = now + 3 * SETTLED;
        let first = stamps(folder.path(), later).expect("settled");
        assert_eq!(stamps(folder.path(), later).as_ref(), Some(&first));

        // Another file of the same length in its place, as editors and Kubernetes do it.
        let other = folder.path().join("other");
        std::fs::write(&other, "kind: meshConfig").expect("written");
        std::fs::rename(&other, &file).expect("moved");
        let second = stamps(folder.path(), later).expect("settled");
        assert_ne!(second, first);

        std::fs::write(folder.path().join("more.yaml"), "").expect("written");
        assert_eq!(stamps(folder.path(), later).expect("settled").len(), 2);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(stamps(folder.path(), later).expect("settled").len(), 1);
    }
}
