//! The watched folder of resources: looked at twice a second, taken whole or
//! not at all. A folder that does not parse keeps what it gave before.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{ChangeError, Mesh};

/// How often the folder is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Files in the folder; subfolders are not entered.
pub(crate) const MAX_FILES: usize = 1000;
/// Bytes of all files together.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;

type Fingerprint = BTreeMap<PathBuf, (u64, SystemTime)>;

/// Follows the folder until told to stop; the first look is made at once.
pub(super) async fn follow(mesh: &Mesh, folder: PathBuf, stop: CancellationToken) {
    let mut seen: Option<Result<Fingerprint, String>> = None;
    loop {
        let path = folder.clone();
        // A panic in the blocking part would be ours; it reads files and nothing else.
        let looked =
            tokio::task::spawn_blocking(move || look(&path).map_err(|error| error.to_string()))
                .await
                .unwrap_or_else(|error| Err(error.to_string()));
        if seen.as_ref() != Some(&looked) {
            match &looked {
                Ok(files) => take(mesh, files.keys().cloned().collect()).await,
                Err(error) => {
                    tracing::error!(folder = %folder.display(), %error, "cannot read the folder of resources; what it gave stays")
                }
            }
            seen = Some(looked);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn take(mesh: &Mesh, files: Vec<PathBuf>) {
    let texts = tokio::task::spawn_blocking(move || -> io::Result<Vec<_>> {
        files
            .into_iter()
            .map(|file| Ok((file.display().to_string(), std::fs::read_to_string(file)?)))
            .collect()
    })
    .await;
    let texts = match texts {
        Ok(Ok(texts)) => texts,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read a resource file; what the folder gave stays");
            return;
        }
        Err(_) => return,
    };
    match mesh.replace_folder(&texts).await {
        Ok(warnings) if warnings.is_empty() => {}
        Ok(warnings) => tracing::warn!("{}", warnings.render(false)),
        Err(ChangeError::Refused(found)) => {
            tracing::error!(
                "the folder of resources is refused; what it gave stays\n{}",
                found.render(false)
            );
        }
        Err(error) => tracing::error!(%error, "the folder of resources is not taken"),
    }
}

/// Names, sizes and times of the folder's YAML and JSON files.
fn look(folder: &Path) -> io::Result<Fingerprint> {
    let mut files = Fingerprint::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_document = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension == *known)
        });
        if !is_document {
            continue;
        }
        let about = std::fs::metadata(&path)?;
        bytes += about.len();
        files.insert(path, (about.len(), about.modified()?));
        if files.len() > MAX_FILES || bytes > MAX_BYTES {
            let message = format!("more than {MAX_FILES} files or {MAX_BYTES} bytes");
            return Err(io::Error::other(message));
        }
    }
    Ok(files)
}
