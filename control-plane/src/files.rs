//! Files and folders only the control plane's user may read: the data folder,
//! the CA's keys, the operator's token. Knows modes and atomic replacement,
//! not what is written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Creates a folder of mode 0700 with its parents, or tightens the one that is there.
///
/// # Errors
/// The folder cannot be created or changed.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FOLDER))
}

/// Replaces a file by one of mode 0600 with these contents: after a crash
/// there is the old one or the new one, whole.
///
/// # Errors
/// The folder is not writable, or the disk is full.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = Path::new(&next);
    match fs::remove_file(next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(next)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(next, path)?;
    File::open(folder)?.sync_all()
}

/// Makes sure that a file exists with mode 0600, keeping its contents.
///
/// # Errors
/// The file cannot be created or changed.
pub(crate) fn private_file(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FILE))
}

/// Reads a text file; `None` where there is none.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn what_is_private_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_folder(&inner).unwrap();
        let file = inner.join("key");
        assert_eq!(read_if_there(&file).unwrap(), None);
        for contents in ["one", "two"] {
            write_private(&file, contents.as_bytes()).unwrap();
            assert_eq!(read_if_there(&file).unwrap().as_deref(), Some(contents));
        }
        private_file(&inner.join("store")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&inner.join("store")), 0o600);
    }
}
