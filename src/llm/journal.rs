//! What a worker has free of its leases, in files that outlive it: so that what it provably never sent comes back after `kill -9`.
//!
//! One file for each lease, locked as long as its worker lives. It says what is free before any of it may be sent, and
//! what has become free only after it has; so it never says too much. A write is not synced: the kernel keeps it when the process dies, and
//! after a start of the machine, when it may not have, the file is not believed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tracing::warn;
use uuid::Uuid;

use crate::domain::{NanoUsd, Tenant};
use crate::store::LeaseId;

/// The files of the workers of one database on this machine.
pub(super) struct Journal {
    folder: PathBuf,
    /// Names this start of the machine.
    boot: String,
}

/// The file of one lease. Dropped without [`Page::end`] it stays, as after a death.
pub(super) struct Page {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// `None` where it can't be told one start of the machine from the next (not Linux), or nothing can be written: then what a
    /// dead worker had leased counts as spent.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        let open = || {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
            fs::create_dir_all(folder)?;
            Ok(Self { folder: folder.to_owned(), boot })
        };
        let opened: io::Result<Self> = open();
        opened.map_err(|error| failed(folder, &error)).ok()
    }

    /// Begins the file of a lease of which nothing is free yet.
    pub(super) fn begin(&self, lease: &LeaseId) -> Option<Page> {
        let begin = || {
            let path = self.folder.join(lease.id.simple().to_string());
            // Nobody may find it before it is locked.
            let _turn = self.turn()?;
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.lock()?;
            let line = format!("{} {} {} {}\n", figure(0), lease.day, lease.tenant, self.boot);
            file.write_all_at(line.as_bytes(), 0)?;
            Ok(Page { path, file })
        };
        let begun: io::Result<Page> = begin();
        begun.map_err(|error| failed(&self.folder, &error)).ok()
    }

    /// What workers left that are dead, each once: whoever is told has it.
    pub(super) fn orphans(&self) -> Vec<(LeaseId, NanoUsd)> {
        let mut orphans = vec![];
        let read = |orphans: &mut Vec<_>| {
            let _turn = self.turn()?;
            for entry in fs::read_dir(&self.folder)? {
                let path = entry?.path();
                let Some(id) = path.file_name().and_then(|name| Uuid::try_parse(name.to_str()?).ok()) else { continue };
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file?,
                };
                match file.try_lock() {
                    Err(TryLockError::WouldBlock) => continue,
                    locked => locked?,
                }
                let text = io::read_to_string(&file)?;
                // Removed first: who dies here leaves it spent, and nobody has it twice.
                fs::remove_file(&path)?;
                orphans.extend(self.parse(id, &text));
            }
            Ok(())
        };
        let read: io::Result<()> = read(&mut orphans);
        read.unwrap_or_else(|error| failed(&self.folder, &error));
        orphans
    }

    fn parse(&self, id: Uuid, text: &str) -> Option<(LeaseId, NanoUsd)> {
        let mut words = text.split_whitespace();
        let amount = NanoUsd(words.next()?.parse().ok()?);
        let (day, tenant) = (words.next()?.parse().ok()?, Tenant::parse(words.next()?).ok()?);
        let believed = words.next()? == self.boot && amount > NanoUsd::ZERO;
        believed.then_some((LeaseId { id, tenant, day }, amount))
    }

    /// Files are begun and looked for one at a time.
    fn turn(&self) -> io::Result<File> {
        let turn = OpenOptions::new().write(true).create(true).truncate(false).open(self.folder.join("lock"))?;
        turn.lock()?;
        Ok(turn)
    }
}

impl Page {
    /// So much is free. False where that could not be written: then the file is gone, and all counts as spent.
    pub(super) fn write(&self, free: i64) -> bool {
        let written = self.file.write_all_at(figure(free).as_bytes(), 0);
        if let Err(error) = &written {
            failed(&self.path, error);
            self.end();
        }
        written.is_ok()
    }

    /// Nothing is left of the lease.
    pub(super) fn end(&self) {
        fs::remove_file(&self.path).unwrap_or_else(|error| failed(&self.path, &error));
    }
}

/// Always of the same width.
fn figure(free: i64) -> String {
    format!("{:020}", free.max(0))
}

fn failed(path: &Path, error: &io::Error) {
    warn!(%error, "{}: what a crash leaves of a budget can't be told from what it spent", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(tenant: &str) -> LeaseId {
        LeaseId { id: Uuid::now_v7(), tenant: Tenant::parse(tenant).unwrap(), day: 20_000 }
    }

    #[test]
    fn what_the_dead_left_is_found_once_and_what_the_living_have_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, other) = (Journal::open(folder.path()).unwrap(), Journal::open(folder.path()).unwrap());
        let (dead, living, spent, over) = (lease("acme"), lease("acme"), lease("default"), lease("default"));
        let pages = [&dead, &living, &spent, &over].map(|lease| journal.begin(lease).unwrap());
        let [of_dead, of_living, of_spent, of_over] = pages;
        assert!(
            of_dead.write(1_000) && of_dead.write(70) && of_living.write(5) && of_spent.write(9) && of_spent.write(-3)
        );
        of_over.end();
        assert_eq!(other.orphans(), [], "all of them live");
        drop((of_dead, of_spent, of_over));
        assert_eq!(other.orphans(), [(dead, NanoUsd(70))]);
        assert_eq!(journal.orphans(), []);
        drop(of_living);
        assert_eq!(journal.orphans(), [(living, NanoUsd(5))]);
    }

    #[test]
    fn what_was_written_before_the_machine_was_started_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(journal.begin(&lease("acme")).unwrap().write(70));
        journal.boot = "another".to_owned();
        assert_eq!(journal.orphans(), []);
        journal.boot = Journal::open(folder.path()).unwrap().boot;
        assert_eq!(journal.orphans(), [], "nor later: it is gone");
    }

    #[test]
    fn rubbish_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for (name, text) in
            [("readme", "70 1 acme x"), (&"a".repeat(32), "\u{0}\u{0}"), (&"b".repeat(32), "-70 1 acme")]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::write(folder.path().join("c".repeat(32)), format!("70 1 a.b {}", journal.boot)).unwrap();
        assert_eq!(journal.orphans(), []);
        assert!(folder.path().join("readme").exists(), "what is no lease's is left alone");
    }
}
