//! The log of this project: see crates/broccoli-node/src/journal/log.rs.

use std::path::Path;

use broccoli_node::journal::{self, RecordKey, Write};

use crate::store::{Op, Result, Store};

pub struct Log(journal::Log);

impl Store for Log {
    /// Damage is an error here. The project itself reports it and continues.
    fn open(dir: &Path) -> Result<Self> {
        let (log, damaged) = journal::Log::open(dir)?;
        match damaged.first() {
            Some(damage) => Err(damage.as_str().into()),
            None => Ok(Self(log)),
        }
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let writes: Vec<Write> = ops.iter().flat_map(writes_of).collect();
        self.0.commit(&writes)?;
        Ok(self.0.make_room()?)
    }

    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()> {
        self.0.records().for_each(|(key, value)| each(key.job, key.number, &value));
        Ok(())
    }
}

fn writes_of(op: &Op) -> Vec<Write> {
    let key = |job, number| RecordKey { job, number };
    match op {
        Op::Put { job, no, value } => vec![Write { key: key(*job, *no), value: Some(value.clone().into()) }],
        Op::Forget { job, records } => (0..*records).map(|no| Write { key: key(*job, no), value: None }).collect(),
    }
}
