//! The database file: opening it, its schema, and whether it is still ours to use.
//!
//! **Write-ahead log.** A commit costs one sync instead of three, and a reader never makes a
//! writer wait. It needs memory shared between the processes, so one machine, which an embedded
//! store asks for anyway; and its two extra files count as part of the store when it is checked
//! that nobody deleted or replaced it. `synchronous=FULL` syncs the log in every commit: without
//! it a beat that was confirmed could be gone after a power failure.
//!
//! A deleted key stays as a row without a value until enough revisions have passed, which is all
//! that a watch needs: rows with a higher revision than it has seen are its news.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::EmbeddedConfig;
use super::place::{Files, Machine, refuse_network};
use crate::error::StoreError;
use crate::keys::Keys;

/// `conc` in ASCII: SQLite's application id of our files.
const APPLICATION: i64 = 0x636F_6E63;
/// The schema's version.
const VERSION: i64 = 1;
/// The longest wait between two attempts to get a lock.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

const SCHEMA: &str = "
    CREATE TABLE store (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        cluster INTEGER NOT NULL,    -- this store's identity, random
        revision INTEGER NOT NULL,   -- of the newest change; never repeats
        compacted INTEGER NOT NULL,  -- deletions up to here may be forgotten
        boot TEXT NOT NULL           -- the boot that it is used in
    );
    INSERT INTO store VALUES (1, random(), 1, 0, '');
    CREATE TABLE machine (id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE entry (
        key BLOB PRIMARY KEY,
        created INTEGER NOT NULL,    -- 0 for a deleted key
        modified INTEGER NOT NULL,
        value BLOB
    ) WITHOUT ROWID;
    CREATE INDEX changed ON entry (modified);
    CREATE INDEX deleted ON entry (modified) WHERE created = 0;
";

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) keys: Keys,
    pub(super) remember: u64,
    path: PathBuf,
    bell: PathBuf,
    connection: Connection,
    files: Files,
    machine: Machine,
}

/// The store's own row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) cluster: u64,
    pub(super) revision: u64,
    pub(super) compacted: u64,
}

/// What to do where there is no store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

impl Database {
    /// Opens the file, waiting for other writers until `deadline`.
    pub(super) fn open(
        config: &EmbeddedConfig,
        missing: Missing,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        match missing {
            Missing::Create => create(&config.path)?,
            Missing::Refuse if !config.path.exists() => {
                return Err(StoreError::NoStore { path: config.path.clone() });
            }
            Missing::Refuse => {}
        }
        Self::open_file(config, missing, deadline)
    }

    /// Opens the file that is already open as `files` once more, and no other.
    pub(super) fn open_again(
        config: &EmbeddedConfig,
        files: &Files,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        files.check()?;
        let opened = Self::open_file(config, Missing::Refuse, deadline);
        // A file that was replaced meanwhile is the better explanation of any error.
        files.check()?;
        opened
    }

    fn open_file(
        config: &EmbeddedConfig,
        missing: Missing,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let path = config.path.clone();
        refuse_network(&path)?;
        let before = Files::at([path.clone()])?;
        // SQLite's other files lie beside the file itself, wherever a link to it lies.
        let itself = fs::canonicalize(&path).map_err(file_error("find", &path))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |source| database_error(&path, source);
        let mut connection = Connection::open_with_flags(&itself, flags).map_err(failed)?;
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        // Somebody else's file is not changed, not even its journal's mode.
        let empty = patiently(&path, deadline, || content(&connection))
            .map_err(|error| foreign(&path, error))?
            .is_nothing(&path)?;
        if empty && missing == Missing::Refuse {
            return Err(StoreError::NoStore { path });
        }
        patiently(&path, deadline, || set_up(&connection))?;
        let machine = Machine::here()?;
        let files = {
            let txn = begin(&mut connection, &path, TransactionBehavior::Immediate, deadline)?;
            prepare(&txn, &path)?;
            claim(&txn, &path, &machine)?;
            let files = [path.clone(), beside(&itself, "-wal"), beside(&itself, "-shm")];
            let files = Files::at(files)?;
            txn.commit().map_err(failed)?;
            files
        };
        before.check()?;
        let bell = beside(&itself, "-bell");
        let keys = Keys::new(&config.cluster);
        Ok(Database { keys, remember: config.remember, path, bell, connection, files, machine })
    }

    /// Begins a transaction, waiting for other writers until `deadline`.
    pub(super) fn begin(
        &mut self,
        behavior: TransactionBehavior,
        deadline: Instant,
    ) -> Result<(Transaction<'_>, Head), StoreError> {
        let txn = begin(&mut self.connection, &self.path, behavior, deadline)?;
        let (head, boot) = head(&txn).map_err(|source| database_error(&self.path, source))?;
        if boot != self.machine.boot {
            return Err(StoreError::OtherMachine { path: self.path.clone() });
        }
        Ok((txn, head))
    }

    /// The files that are open.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// An error of SQLite's, with the path.
    pub(super) fn error(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
        move |source| database_error(path, source)
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file whose every write tells watchers that something was committed.
    pub(super) fn bell(&self) -> &Path {
        &self.bell
    }

    /// Wakes the watchers of every daemon. They look by themselves every now and then, so that
    /// a bell that cannot be rung costs only time.
    pub(super) fn ring(&self) {
        if let Err(error) = open_bell(&self.bell).and_then(|mut bell| bell.write_all(b"!")) {
            tracing::debug!(path = %self.bell.display(), %error, "cannot ring the store's bell");
        }
    }
}

/// The bell, created if it is missing.
pub(super) fn open_bell(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether it is only that others are writing.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn database_error(path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Database { path: path.to_owned(), source }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Creates the file if there is none. An existing one is left to SQLite alone: closing any
/// other descriptor of it would drop the locks of this process.
fn create(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(file_error("create", path)(source)),
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::File { action, path: path.to_owned(), source }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// What a file says that it is.
struct Content {
    application: i64,
    version: i64,
    tables: i64,
}

fn content(connection: &Connection) -> rusqlite::Result<Content> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables = "SELECT count(*) FROM sqlite_schema";
    Ok(Content {
        application: pragma("application_id")?,
        version: pragma("user_version")?,
        tables: connection.query_row(tables, (), |row| row.get(0))?,
    })
}

impl Content {
    /// Whether it is an empty file and not a store of ours; any other is refused.
    fn is_nothing(&self, path: &Path) -> Result<bool, StoreError> {
        if (self.application, self.version) == (APPLICATION, VERSION) {
            return Ok(false);
        }
        if self.tables == 0 {
            return Ok(true);
        }
        let found = match self.application {
            APPLICATION => format!("its version is {}", self.version),
            _ => "it is another program's database".to_owned(),
        };
        Err(StoreError::ForeignFile { path: path.to_owned(), expected: VERSION, found })
    }
}

/// Creates the schema in an empty file, and refuses any other but ours.
fn prepare(txn: &Transaction<'_>, path: &Path) -> Result<(), StoreError> {
    let failed = |source| database_error(path, source);
    if !content(txn).map_err(failed)?.is_nothing(path)? {
        return Ok(());
    }
    let create = || {
        txn.execute_batch(SCHEMA)?;
        txn.pragma_update(None, "application_id", APPLICATION)?;
        txn.pragma_update(None, "user_version", VERSION)
    };
    create().map_err(failed)
}

/// Makes sure that the store is this machine's, and remembers this boot.
fn claim(txn: &Transaction<'_>, path: &Path, machine: &Machine) -> Result<(), StoreError> {
    let failed = |source| database_error(path, source);
    let (_, boot) = head(txn).map_err(failed)?;
    if !boot.is_empty() && boot != machine.boot {
        let Some(lasting) = &machine.lasting else {
            return Err(StoreError::NoMachine { path: path.to_owned() });
        };
        let known: bool = txn
            .query_row("SELECT EXISTS (SELECT 1 FROM machine WHERE id = ?1)", [lasting], |row| {
                row.get(0)
            })
            .map_err(failed)?;
        if !known {
            return Err(StoreError::OtherMachine { path: path.to_owned() });
        }
    }
    let remember = || {
        txn.execute("UPDATE store SET boot = ?1 WHERE boot <> ?1", [&machine.boot])?;
        match &machine.lasting {
            Some(id) => txn.execute("INSERT OR IGNORE INTO machine VALUES (?1)", [id]),
            None => Ok(0),
        }
    };
    remember().map_err(failed).map(|_| ())
}

fn head(connection: &Connection) -> rusqlite::Result<(Head, String)> {
    connection.query_row("SELECT cluster, revision, compacted, boot FROM store", (), |row| {
        let cluster: i64 = row.get(0)?;
        let head = Head {
            cluster: cluster.cast_unsigned(),
            revision: row.get(1)?,
            compacted: row.get(2)?,
        };
        Ok((head, row.get(3)?))
    })
}

/// What SQLite says of a file that is no database at all.
fn foreign(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Database { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::NotADatabase) =>
        {
            let found = "it is no database".to_owned();
            StoreError::ForeignFile { path: path.to_owned(), expected: VERSION, found }
        }
        error => error,
    }
}

fn begin<'a>(
    connection: &'a mut Connection,
    path: &Path,
    behavior: TransactionBehavior,
    deadline: Instant,
) -> Result<Transaction<'a>, StoreError> {
    let connection = &*connection;
    patiently(path, deadline, || {
        let txn = Transaction::new_unchecked(connection, behavior)?;
        // A deferred transaction begins with its first reading.
        txn.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
        Ok(txn)
    })
}

/// Tries again while others are writing, until the deadline.
fn patiently<T>(
    path: &Path,
    deadline: Instant,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) => {
                if Instant::now() + pause >= deadline {
                    let after = begun.elapsed();
                    return Err(StoreError::TimedOut { place: path.display().to_string(), after });
                }
                thread::sleep(pause);
                pause = (pause * 2).min(BUSY_PAUSE);
            }
            other => return other.map_err(|source| database_error(path, source)),
        }
    }
}
