//! SQLite: a B-tree with a write-ahead log, in C.

use std::path::Path;

use rusqlite::Connection;

use crate::store::{Op, Result, Store};

/// The id of a row is the job and 24 bits for the number of the record: the densest table that SQLite supports.
const NO_BITS: u32 = 24;

pub struct Sqlite(Connection);

impl Store for Sqlite {
    fn open(dir: &Path) -> Result<Self> {
        let db = Connection::open(dir.join("journal.sqlite"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "cache_size", -16 * 1024)?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")?;
        Ok(Self(db))
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let txn = self.0.transaction()?;
        for op in ops {
            match op {
                Op::Put { job, no, value } => {
                    txn.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?.execute((id(*job, *no), value))?
                }
                Op::Forget { job, .. } => txn
                    .prepare_cached("DELETE FROM records WHERE id BETWEEN ?1 AND ?2")?
                    .execute((id(*job, 0), id(*job, (1 << NO_BITS) - 1)))?,
            };
        }
        Ok(txn.commit()?)
    }

    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()> {
        let mut statement = self.0.prepare("SELECT id, value FROM records ORDER BY id")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let id = row.get::<_, i64>(0)? as u64;
            each(id >> NO_BITS, (id & ((1 << NO_BITS) - 1)) as u32, row.get_ref(1)?.as_blob()?);
        }
        Ok(())
    }
}

fn id(job: u64, no: u32) -> i64 {
    (job << NO_BITS | u64::from(no)) as i64
}
