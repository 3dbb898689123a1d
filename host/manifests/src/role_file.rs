//! Keeping an election's role file.
//!
//! It may say `leader` only as an exclusive effect: the file that says `standby` waits beside it, and
//! the guard knows both names, before the one that says `leader` appears.

use std::path::PathBuf;

use conclave_core::ids::{ElectionName, NodeName, Token};

use crate::aside;
use crate::digest::Digest;
use crate::error::{FileError, phrase};
use crate::event::Damage;
use crate::files::{self, Fingerprint, Found, Target};
use crate::gate::{Effect, Gate, GateError, Slot};
use crate::ledger::{LedgerEntry, LedgerFile};
use crate::role::RoleRecord;

/// Everybody may read a role file.
const MODE: u32 = 0o644;

/// Larger than any role file.
const MAX_BYTES: u64 = 64 * 1024;

/// One election's role file.
pub(crate) struct RoleFile {
    pub(crate) target: Target,
    election: ElectionName,
    node: NodeName,
    /// What it says by our hand, and its state then.
    written: Option<(RoleRecord, Option<Fingerprint>)>,
    /// The guard's watch over it, while it may say `leader`.
    slot: Option<Box<dyn Slot>>,
    /// An earlier daemon of this node may have left it saying `leader`.
    inherited: bool,
    /// Changed files that were set aside, to be saved.
    pub(crate) asides: Vec<PathBuf>,
}

/// What became of writing a role file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It said so already.
    Same,
    /// It says so now.
    Changed,
    /// It had been changed or deleted by somebody, and says so again.
    Repaired(Damage),
    /// The gate is closed: nothing was done.
    Closed,
}

/// Why a role file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{kind} that is not ours stands at {}", path.display())]
    Foreign { path: PathBuf, kind: &'static str },
}

impl RoleFile {
    pub(crate) fn new(
        target: Target,
        election: ElectionName,
        node: NodeName,
        inherited: bool,
    ) -> Self {
        let asides = Vec::new();
        RoleFile { target, election, node, written: None, slot: None, inherited, asides }
    }

    /// Whether it may say `leader`.
    pub(crate) fn may_say_leader(&self) -> bool {
        self.slot.is_some() || self.inherited
    }

    /// What the ledger must say before the file says `leader`.
    pub(crate) fn entry(&self, token: Token) -> LedgerEntry {
        let record = RoleRecord::leader(&self.election, &self.node, token);
        LedgerEntry {
            path: self.target.path().to_owned(),
            election: self.election.clone(),
            file: LedgerFile::RoleFile,
            exclusive: true,
            token: Some(token),
            digest: Digest::of(&record.to_json()),
        }
    }

    /// What stands there that is not ours, in words.
    pub(crate) fn foreign(&self) -> Result<Option<&'static str>, FileError> {
        let path = self.target.path();
        match files::inspect(path)? {
            Found::Nothing => Ok(None),
            Found::File(_) if self.written.is_some() || self.inherited => Ok(None),
            Found::File(_) => {
                let (bytes, _) = files::read(path, MAX_BYTES)?;
                let ours = RoleRecord::from_json(&bytes, &self.election).is_some();
                Ok((!ours).then_some("a file"))
            }
            Found::Directory => Ok(Some("a directory")),
            Found::Other(_) if self.written.is_some() => Ok(None),
            Found::Other(kind) => Ok(Some(kind)),
        }
    }

    /// Makes it say that this node leads, if the gate is open.
    pub(crate) fn say_leader(
        &mut self,
        token: Token,
        gate: &dyn Gate,
        suspect: bool,
    ) -> Result<Written, RoleFileError> {
        let record = RoleRecord::leader(&self.election, &self.node, token);
        let damage = self.damage(suspect)?;
        if damage.is_none() && self.slot.is_some() && self.says(&record) {
            return Ok(Written::Same);
        }
        files::create_staging(self.target.dir())?;
        let standby = RoleRecord::standby(&self.election, &self.node, None);
        files::stage(&self.target.standby(), &standby.to_json(), MODE)?;
        if self.slot.is_none() {
            let (path, standby) = (self.target.path(), self.target.standby());
            let slot = gate.claim(&self.election, token, Effect::RoleFile, path, &standby)?;
            self.slot = Some(slot);
        }
        if self.already_says(&record)? {
            self.remember(record);
            return Ok(Written::Same);
        }
        files::stage(&self.target.staged(), &record.to_json(), MODE)?;
        self.put(record, damage, true)
    }

    /// Makes it say that this node does not lead, and who does. Only after [`reset`](Self::reset)
    /// where it may say otherwise.
    pub(crate) fn say_standby(
        &mut self,
        holder: Option<&(NodeName, Token)>,
        suspect: bool,
    ) -> Result<Written, RoleFileError> {
        let record = RoleRecord::standby(&self.election, &self.node, holder);
        let damage = self.damage(suspect)?;
        if damage.is_none() && self.says(&record) {
            return Ok(Written::Same);
        }
        if self.already_says(&record)? {
            self.remember(record);
            return Ok(Written::Same);
        }
        files::create_staging(self.target.dir())?;
        files::stage(&self.target.staged(), &record.to_json(), MODE)?;
        self.put(record, damage, false)
    }

    /// Withdraws `leader`: a rename of the file that waits, or, without it, a removal, since a
    /// missing file means standby. The caller syncs the directory and then
    /// [`release`](Self::release)s.
    pub(crate) fn reset(&mut self) -> Result<(), FileError> {
        files::clear_staged(&self.target);
        if files::inspect(self.target.path())? == Found::Directory {
            return Ok(());
        }
        let standby = RoleRecord::standby(&self.election, &self.node, None);
        if self.already_says(&standby).unwrap_or(false) {
            // The guard was here first; that is no change by somebody else.
            files::remove(&self.target.standby())?;
            self.remember(standby);
            return Ok(());
        }
        if matches!(self.damage(false), Ok(Some(Damage::Changed))) {
            self.keep_aside();
        }
        if files::rename(&self.target.standby(), self.target.path()).is_err() {
            files::remove(self.target.path())?;
        }
        match files::inspect(self.target.path()) {
            Ok(Found::Nothing) => self.written = None,
            _ => self.remember(standby),
        }
        Ok(())
    }

    /// Gives up the guard's watch; `false` while the guard is at it.
    pub(crate) fn release(&mut self) -> bool {
        if self.slot.as_ref().is_some_and(|slot| !slot.release()) {
            return false;
        }
        self.slot = None;
        self.inherited = false;
        true
    }

    fn says(&self, record: &RoleRecord) -> bool {
        self.written.as_ref().is_some_and(|(written, _)| written == record)
    }

    /// What somebody did to the file since we wrote it.
    fn damage(&self, suspect: bool) -> Result<Option<Damage>, RoleFileError> {
        if let Some(kind) = self.foreign()? {
            return Err(RoleFileError::Foreign { path: self.target.path().to_owned(), kind });
        }
        let Some((written, seen)) = &self.written else { return Ok(None) };
        Ok(match files::inspect(self.target.path())? {
            Found::Nothing => Some(Damage::Deleted),
            Found::File(print) if *seen == Some(print) && !suspect => None,
            Found::File(_) if self.already_says(written)? => None,
            _ => Some(Damage::Changed),
        })
    }

    /// With `gated`, only while the gate is open: before anything is touched, and again with
    /// nothing but the rename to come.
    fn put(
        &mut self,
        record: RoleRecord,
        damage: Option<Damage>,
        gated: bool,
    ) -> Result<Written, RoleFileError> {
        let closed = |role: &Self| gated && !role.slot.as_ref().is_some_and(|slot| slot.open());
        if damage == Some(Damage::Changed) && !closed(self) {
            self.keep_aside();
        }
        if closed(self) {
            files::clear_staged(&self.target);
            return Ok(Written::Closed);
        }
        files::rename(&self.target.staged(), self.target.path())?;
        files::sync_dir(self.target.dir())?;
        self.remember(record);
        Ok(damage.map_or(Written::Changed, Written::Repaired))
    }

    /// The content is ours to write again in any case; what somebody made of it is kept if it can be.
    fn keep_aside(&mut self) {
        match aside::keep_aside(&self.target) {
            Ok(aside) => self.asides.push(aside),
            Err(error) => tracing::warn!(error = phrase(&error), "a changed role file is lost"),
        }
    }

    /// Reads it back, because somebody may have changed it since the rename.
    fn remember(&mut self, record: RoleRecord) {
        let print = files::read(self.target.path(), MAX_BYTES)
            .ok()
            .filter(|(bytes, _)| *bytes == record.to_json())
            .map(|(_, print)| print);
        self.written = Some((record, print));
    }

    fn already_says(&self, record: &RoleRecord) -> Result<bool, FileError> {
        let path = self.target.path();
        match files::inspect(path)? {
            Found::File(_) => {
                files::read(path, MAX_BYTES).map(|(bytes, _)| bytes == record.to_json())
            }
            _ => Ok(false),
        }
    }
}
