//! The argument lists of one run and their results: one list, or those of a bin.

use alloc::format;
use alloc::vec;
use alloc::vec::{IntoIter, Vec};

use broccoli_proto::message::Failure;
use broccoli_proto::{Cause, Cbor};

/// The argument lists of a run, and their results so far.
#[derive(Debug)]
pub struct Items {
    lists: IntoIter<Cbor>,
    bin: bool,
    at: usize,
    results: Vec<Cbor>,
    /// Bytes of the results so far, and the limit.
    bytes: usize,
    bytes_max: usize,
}

impl Items {
    /// The items of a run. Its results have at most `bytes_max` bytes together.
    ///
    /// # Errors
    /// If a bin is not a list.
    pub fn new(args: Cbor, bin: bool, bytes_max: usize) -> Result<Items, Failure> {
        let lists = if bin {
            let lists = args.elements().ok_or_else(|| Failure::new(Cause::Unfit, "the bin is not a list"))?;
            lists.into_iter().map(|list| Cbor::from_encoded(list.to_vec())).collect()
        } else {
            vec![args]
        };
        let results = Vec::with_capacity(lists.len());
        Ok(Items { lists: lists.into_iter(), bin, at: 0, results, bytes: 0, bytes_max })
    }

    /// The argument list of the next call.
    pub fn next_args(&mut self) -> Option<Cbor> {
        self.at += 1;
        self.lists.next()
    }

    /// Whether no argument list is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lists.len() == 0
    }

    /// Keeps the result of a call.
    ///
    /// # Errors
    /// If the results are too large.
    pub fn push(&mut self, value: Cbor) -> Result<(), Failure> {
        self.bytes += value.as_bytes().len();
        if self.bytes > self.bytes_max {
            return Err(Failure::result_too_large(self.bytes, self.bytes_max));
        }
        self.results.push(value);
        Ok(())
    }

    /// Adds to a failure which item of a bin has failed.
    pub fn name(&self, failure: Failure) -> Failure {
        match self.bin {
            true => Failure { text: format!("item {}: {}", self.at - 1, failure.text), ..failure },
            false => failure,
        }
    }

    /// The result of the run.
    pub fn take_result(&mut self) -> Cbor {
        match self.bin {
            true => Cbor::array(self.results.iter().map(Cbor::as_bytes)),
            false => self.results.pop().unwrap_or_else(Cbor::null),
        }
    }
}
