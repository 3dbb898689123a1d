//! Where a store's file lies: on which machine, on which file system, and whether its path still
//! names it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// File systems whose locks or shared memory may span machines, by the magic number that
/// `statfs` reports (Linux's `magic.h`, and statfs(2)). FUSE is among them because nothing
/// tells what is behind it.
const NETWORK: [(u64, &str); 14] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

/// Refuses a file on a file system that other machines may reach too.
pub(super) fn refuse_network(path: &Path) -> Result<(), StoreError> {
    let kind = rustix::fs::statfs(path).map_err(|errno| StoreError::File {
        action: "find the file system of",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    // The field's width and sign differ between architectures; magic numbers have 32 bits.
    let magic = u64::from(kind.f_type as u32);
    match NETWORK.iter().find(|(known, _)| *known == magic) {
        Some((_, kind)) => Err(StoreError::NetworkFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Which machine this is.
///
/// The kernel's boot id is the same in every container on it, and another on every other
/// machine, but changes with a reboot; the lasting identity survives that, but containers have
/// their own or none. So a store remembers the boot it is used in, together with every lasting
/// identity that was seen in it: whoever shares the boot, or comes back as one of those after
/// it, is on the same machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// This boot of the kernel.
    pub(super) boot: String,
    /// The identity that survives a reboot, where there is one.
    pub(super) lasting: Option<String>,
}

impl Machine {
    /// This machine.
    pub(super) fn here() -> Result<Self, StoreError> {
        let boot = PathBuf::from("/proc/sys/kernel/random/boot_id");
        let lasting =
            ["/etc/machine-id", "/var/lib/dbus/machine-id", "/sys/class/dmi/id/product_uuid"];
        let lasting = lasting.iter().find_map(|path| identity(Path::new(path)));
        match fs::read_to_string(&boot) {
            Ok(text) => Ok(Machine { boot: text.trim().to_owned(), lasting }),
            Err(source) => Err(StoreError::File { action: "read", path: boot, source }),
        }
    }
}

fn identity(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    // systemd writes "uninitialized" into images that have no identity yet.
    (!text.is_empty() && text != "uninitialized").then(|| text.to_owned())
}

/// The files that make up an open store, as they were when it was opened.
///
/// Whoever deletes or replaces one of them under running daemons parts those that have the old
/// file from those that open the new one: each side would then elect a leader.
#[derive(Clone, Debug)]
pub(super) struct Files(Vec<(PathBuf, Inode)>);

/// Device and inode number.
type Inode = (u64, u64);

impl Files {
    /// The files at these paths.
    pub(super) fn at(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, StoreError> {
        let known = |path: PathBuf| match inode(&path) {
            Ok(inode) => Ok((path, inode)),
            Err(source) => Err(StoreError::File { action: "look at", path, source }),
        };
        paths.into_iter().map(known).collect::<Result<_, _>>().map(Files)
    }

    /// Fails when a path no longer names the same file.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, known) in &self.0 {
            match inode(path) {
                Ok(seen) if seen == *known => {}
                Ok(_) => return Err(StoreError::Replaced { path: path.clone() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Replaced { path: path.clone() });
                }
                Err(source) => {
                    return Err(StoreError::File { action: "look at", path: path.clone(), source });
                }
            }
        }
        Ok(())
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_is_accepted_and_this_machine_known() {
        let dir = tempfile::tempdir().unwrap();
        refuse_network(dir.path()).unwrap();
        assert_eq!(Machine::here().unwrap(), Machine::here().unwrap());
        assert!(!Machine::here().unwrap().boot.is_empty());
    }

    #[test]
    fn a_file_that_goes_or_is_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "1").unwrap();
        let files = Files::at([path.clone()]).unwrap();
        files.check().unwrap();
        let other = dir.path().join("g");
        fs::write(&other, "1").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(files.check(), Err(StoreError::Replaced { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(files.check(), Err(StoreError::Replaced { .. })));
    }
}
