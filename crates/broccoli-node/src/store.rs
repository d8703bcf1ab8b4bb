//! Where a node keeps the code of modules: in memory, and in a directory if it was given one.
//!
//! ```text
//! DIR/modules/<id>.manifest      the signed manifest, CBOR
//! DIR/modules/<id>.wasm          the code
//! ```
//!
//! Files are written beside their place and moved there, manifest last: a module is there whole
//! or not at all. What is damaged is put aside as `.bad` and said, never used.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broccoli_proto::module::{SignedManifest, hash};
use broccoli_proto::{Cbor, ModuleHash};

/// The modules of one node.
#[derive(Debug, Default)]
pub(crate) struct Store {
    dir: Option<PathBuf>,
    whole: HashMap<ModuleHash, Arc<[u8]>>,
    /// Chunks of modules that are being pulled, by index.
    partial: HashMap<ModuleHash, HashMap<u32, Vec<u8>>>,
}

/// A module that was in the directory.
pub(crate) struct Stored {
    pub(crate) manifest: SignedManifest,
    pub(crate) wasm: Arc<[u8]>,
}

impl Store {
    /// Opens the directory, if there is one, and reads what is in it. Also gives a message for
    /// each file that is damaged.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub(crate) fn open(dir: Option<&Path>) -> io::Result<(Store, Vec<Stored>, Vec<String>)> {
        let (mut stored, mut damaged) = (Vec::new(), Vec::new());
        let mut store = Store::default();
        let Some(dir) = dir else { return Ok((store, stored, damaged)) };
        let dir = dir.join("modules");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "manifest") {
                continue;
            }
            match read_module(&path) {
                Ok(module) => {
                    store.whole.insert(module.manifest.id, module.wasm.clone());
                    stored.push(module);
                }
                Err(error) => {
                    let aside = path.with_extension("manifest.bad");
                    fs::rename(&path, &aside)?;
                    damaged.push(format!("{} is damaged ({error}); put aside as {}", path.display(), aside.display()));
                }
            }
        }
        store.dir = Some(dir);
        Ok((store, stored, damaged))
    }

    /// Keeps a chunk of a module that is being pulled.
    pub(crate) fn put_chunk(&mut self, module: ModuleHash, index: u32, bytes: Vec<u8>) {
        self.partial.entry(module).or_default().insert(index, bytes);
    }

    /// Puts the chunks of a module together and checks the whole.
    pub(crate) fn assemble(&mut self, signed: &SignedManifest) -> Result<Arc<[u8]>, String> {
        let mut chunks = self.partial.remove(&signed.id).unwrap_or_default();
        let mut wasm = Vec::with_capacity(signed.manifest.size as usize);
        for index in 0..signed.manifest.chunks.len() as u32 {
            wasm.extend(chunks.remove(&index).ok_or_else(|| format!("chunk {index} is missing"))?);
        }
        if hash(&wasm) != signed.manifest.hash {
            return Err("the code does not match the hash in its manifest".into());
        }
        Ok(wasm.into())
    }

    /// Keeps a whole module that was checked.
    ///
    /// # Errors
    /// If it cannot be written; it is kept in memory all the same.
    pub(crate) fn put(&mut self, signed: &SignedManifest, wasm: Arc<[u8]>) -> io::Result<()> {
        self.whole.insert(signed.id, wasm.clone());
        let Some(dir) = &self.dir else { return Ok(()) };
        write_file(&dir.join(format!("{}.wasm", signed.id)), &wasm)?;
        write_file(&dir.join(format!("{}.manifest", signed.id)), Cbor::encode(signed).as_bytes())?;
        File::open(dir)?.sync_all()
    }

    /// A chunk of a whole module.
    pub(crate) fn chunk(&self, module: &ModuleHash, index: u32) -> Option<Vec<u8>> {
        let wasm = self.whole.get(module)?;
        wasm.chunks(broccoli_proto::module::CHUNK_BYTES as usize).nth(index as usize).map(<[u8]>::to_vec)
    }

    /// Forgets a module.
    pub(crate) fn remove(&mut self, module: &ModuleHash) {
        self.partial.remove(module);
        self.whole.remove(module);
        if let Some(dir) = &self.dir {
            // Whatever stays behind is found and checked at the next start.
            let _ = fs::remove_file(dir.join(format!("{module}.manifest")));
            let _ = fs::remove_file(dir.join(format!("{module}.wasm")));
        }
    }
}

fn read_module(manifest_path: &Path) -> Result<Stored, String> {
    let bytes = fs::read(manifest_path).map_err(|error| error.to_string())?;
    let manifest: SignedManifest = minicbor::decode(&bytes).map_err(|_| "not a manifest".to_owned())?;
    let wasm = fs::read(manifest_path.with_extension("wasm")).map_err(|error| format!("its code: {error}"))?;
    if hash(&wasm) != manifest.manifest.hash {
        return Err("its code does not match its hash".into());
    }
    Ok(Stored { manifest, wasm: wasm.into() })
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
