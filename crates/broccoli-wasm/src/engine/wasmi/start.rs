//! How the instances of a module start, to make one fresh again instead of making a new one.
//!
//! Owns what can be restored: the memory and the globals. Everything else that a run could change is excluded when the
//! module is loaded, see [`is_restorable`](crate::restorable::is_restorable).

use alloc::boxed::Box;
use alloc::vec::Vec;

use broccoli_abi::EXPORT_MEMORY;
use wasmi::{Extern, Memory, Mutability, Store, Val};

/// The largest memory that is restored, in bytes. Larger ones would be held for nothing between runs.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// What an instance contains before anything of the guest has run.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) memory_bytes: usize,
    /// The memory from its first byte that is not zero to its last one, and where that is.
    data: Box<[u8]>,
    data_at: usize,
    /// The globals that can change, under the names of their exports.
    globals: Vec<(Box<str>, Val)>,
}

impl Start {
    /// Of an instance in which nothing of the guest has run. None if its memory is too large, or a global that can
    /// change is a reference, which belongs to this store.
    pub(super) fn of<T>(store: &Store<T>, instance: wasmi::Instance) -> Option<Start> {
        let memory = instance.get_memory(store, EXPORT_MEMORY)?.data(store);
        if memory.len() > MEMORY_BYTES_MAX {
            return None;
        }
        let data_at = memory.iter().position(|&byte| byte != 0).unwrap_or(0);
        let end = memory.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let globals = instance.exports(store).filter_map(|export| {
            let name = export.name();
            match export.into_extern() {
                Extern::Global(global) if global.ty(store).mutability() == Mutability::Var => {
                    let value = global.get(store);
                    Some((!value.ty().is_ref()).then(|| (name.into(), value)))
                }
                _ => None,
            }
        });
        let globals = globals.collect::<Option<_>>()?;
        Some(Start { memory_bytes: memory.len(), data: memory[data_at..end].into(), data_at, globals })
    }

    /// Restores the memory and the globals. Returns false if the memory has grown, which cannot be undone.
    pub(super) fn restore<T>(&self, store: &mut Store<T>, instance: wasmi::Instance, memory: Memory) -> bool {
        let bytes = memory.data_mut(&mut *store);
        if bytes.len() != self.memory_bytes {
            return false;
        }
        let (before, rest) = bytes.split_at_mut(self.data_at);
        let (data, after) = rest.split_at_mut(self.data.len());
        before.fill(0);
        data.copy_from_slice(&self.data);
        after.fill(0);
        self.globals.iter().all(|(name, value)| {
            let global = instance.get_global(&*store, name);
            global.is_some_and(|global| global.set(&mut *store, value.clone()).is_ok())
        })
    }
}
