//! redb: a copy-on-write B-tree in Rust.

use std::path::Path;

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::{Op, Result, Store};

const RECORDS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("records");

pub struct Redb(Database);

impl Store for Redb {
    fn open(dir: &Path) -> Result<Self> {
        let db = Builder::new().set_cache_size(16 << 20).create(dir.join("journal.redb"))?;
        let txn = db.begin_write()?;
        txn.open_table(RECORDS)?;
        txn.commit()?;
        Ok(Self(db))
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let mut table = txn.open_table(RECORDS)?;
        for op in ops {
            match op {
                Op::Put { job, no, value } => drop(table.insert((*job, *no), value.as_slice())?),
                Op::Forget { job, .. } => table.retain_in((*job, 0)..=(*job, u32::MAX), |_, _| false)?,
            }
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()> {
        for entry in self.0.begin_read()?.open_table(RECORDS)?.iter()? {
            let (key, value) = entry?;
            let (job, no) = key.value();
            each(job, no, value.value());
        }
        Ok(())
    }
}
