//! Where a node keeps the code of modules: in memory.
//!
//! Chunks are put in place as they come, so that a module is never there twice.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_proto::ModuleHash;
use broccoli_proto::module::{CHUNK_BYTES, SignedManifest, hash};
use broccoli_wasm::{Engine, Module};

/// Measured: a module takes five and a half times its size while it is compiled, four when it is.
const HEAP_PER_BYTE: usize = 6;

/// The modules of one node.
#[derive(Debug)]
pub(crate) struct Store {
    module_bytes_max: usize,
    whole: BTreeMap<ModuleHash, Vec<u8>>,
    /// Modules that are being pulled.
    partial: BTreeMap<ModuleHash, Vec<u8>>,
}

impl Store {
    pub(crate) fn new(module_bytes_max: usize) -> Store {
        Store { module_bytes_max, whole: BTreeMap::new(), partial: BTreeMap::new() }
    }

    /// Keeps a chunk of a module that is being pulled. One beyond the limit is dropped: its module is
    /// refused when it is to be installed.
    pub(crate) fn put_chunk(&mut self, module: ModuleHash, index: u32, bytes: &[u8]) {
        let start = index as usize * CHUNK_BYTES as usize;
        let end = start + bytes.len();
        if end > self.module_bytes_max {
            return;
        }
        let code = self.partial.entry(module).or_default();
        if code.len() < end {
            code.reserve_exact(end - code.len());
            code.resize(end, 0);
        }
        code[start..end].copy_from_slice(bytes);
    }

    /// Checks and compiles a module whose chunks have all come, if `free` bytes of heap are enough.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn install(&mut self, signed: &SignedManifest, engine: &Engine, free: usize) -> Result<Module, String> {
        let manifest = &signed.manifest;
        let wasm = self.partial.remove(&signed.id).unwrap_or_default();
        let (size, max) = (manifest.size as usize, self.module_bytes_max);
        if size > max {
            return Err(format!("the module has {size} bytes, the limit is {max}"));
        }
        let need = size * HEAP_PER_BYTE + engine.limits().stack_bytes_max;
        if need > free {
            return Err(format!("the module needs about {need} bytes of memory, {free} are free"));
        }
        if hash(&wasm) != manifest.hash {
            return Err("the code does not match the hash in its manifest".into());
        }
        let module = engine.load(&wasm).map_err(|error| error.to_string())?;
        if module.functions() != manifest.functions {
            return Err("its functions are not those that its manifest names".into());
        }
        self.whole.insert(signed.id, wasm);
        Ok(module)
    }

    /// A chunk of a whole module.
    pub(crate) fn chunk(&self, module: &ModuleHash, index: u32) -> Option<Vec<u8>> {
        let wasm = self.whole.get(module)?;
        wasm.chunks(CHUNK_BYTES as usize).nth(index as usize).map(<[u8]>::to_vec)
    }

    /// Forgets a module.
    pub(crate) fn remove(&mut self, module: &ModuleHash) {
        self.partial.remove(module);
        self.whole.remove(module);
    }
}
