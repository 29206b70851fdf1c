//! The state folder: the last good SVID and Snapshot, so that a restart needs
//! no control plane. Files of mode 0600, replaced whole: a crash in between
//! leaves the old ones.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The chain of the SVID, PEM.
pub const CHAIN: &str = "svid.pem";
/// Its private key, PEM.
pub const KEY: &str = "svid.key";
/// The trust bundle, PEM.
pub const BUNDLE: &str = "bundle.pem";
/// The resources last acknowledged, as one encoded `DeltaResponse`.
pub const RESOURCES: &str = "resources.bin";

/// A folder, or none: then nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// Opens the folder, making it (0700) if need be.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        Ok(Self(Some(path.to_owned())))
    }

    /// A file's contents; `None` where there is none.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.0.as_ref()?.join(name);
        match fs::read(&path) {
            Ok(contents) => Some(contents),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "state cannot be read");
                None
            }
        }
    }

    /// Replaces a file whole.
    pub fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let Some(folder) = &self.0 else { return Ok(()) };
        let temporary = folder.join(format!(".{name}.new"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(temporary, folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let state = StateDir::open(Some(&path)).expect("opened");
        assert_eq!(state.read(KEY), None);
        state.write(KEY, b"one").expect("written");
        state.write(KEY, b"two").expect("replaced");
        assert_eq!(state.read(KEY).as_deref(), Some(&b"two"[..]));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path.join(KEY)), 0o600);
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let state = StateDir::open(None).expect("opened");
        state.write(KEY, b"one").expect("ignored");
        assert_eq!(state.read(KEY), None);
    }
}
