//! fjall: a log-structured merge tree in Rust.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::store::{Op, Result, Store, key};

pub struct Fjall {
    db: Database,
    records: Keyspace,
}

impl Store for Fjall {
    fn open(dir: &Path) -> Result<Self> {
        let db = Database::builder(dir).cache_size(8 << 20).max_journaling_size(64 << 20).worker_threads(1).open()?;
        let records = db.keyspace("records", || KeyspaceCreateOptions::default().max_memtable_size(8 << 20))?;
        Ok(Self { db, records })
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for op in ops {
            match op {
                Op::Put { job, no, value } => batch.insert(&self.records, key(*job, *no), value.as_slice()),
                Op::Forget { job, records } => {
                    (0..*records).for_each(|no| batch.remove(&self.records, key(*job, no)));
                }
            }
        }
        Ok(batch.commit()?)
    }

    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()> {
        for entry in self.records.iter() {
            let (key, value) = entry.into_inner()?;
            let (job, no) = key.split_at_checked(8).ok_or("short key")?;
            each(u64::from_be_bytes(job.try_into()?), u32::from_be_bytes(no.try_into()?), &value);
        }
        Ok(())
    }
}
