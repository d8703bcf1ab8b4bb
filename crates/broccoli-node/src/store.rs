//! The code of modules: in memory, and in a directory if there is one.
//!
//! ```text
//! DIR/modules/<id>.manifest      the signed manifest, CBOR
//! DIR/modules/<id>.wasm          the code
//! ```
//!
//! Files are written under another name and then renamed, the manifest last. So a module is there completely or not at
//! all. A damaged file is reported, renamed to `.bad`, and never used.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, SignedManifest, hash};
use broccoli_proto::{Cbor, ModuleHash};
use broccoli_wasm::{Engine, Module};

use crate::private;

/// The modules of one node.
#[derive(Debug, Default)]
pub(crate) struct Store {
    dir: Option<PathBuf>,
    whole: HashMap<ModuleHash, Arc<[u8]>>,
    /// Chunks of modules that are being pulled, by index.
    partial: HashMap<ModuleHash, Chunks>,
}

type Chunks = HashMap<u32, Vec<u8>>;

/// A module that was found in the directory.
pub(crate) struct Stored {
    pub(crate) manifest: SignedManifest,
    pub(crate) wasm: Arc<[u8]>,
}

/// The code of a module before it is checked, compiled and written. That takes a while, so it happens outside of the
/// store and the node's main loop.
pub(crate) struct Installation {
    pub(crate) manifest: SignedManifest,
    code: Code,
    /// The engine that compiles it; none on a node that does not run it.
    engine: Option<Engine>,
    /// Where to write it; none if it is already there, or if there is no directory.
    dir: Option<PathBuf>,
}

enum Code {
    Whole(Arc<[u8]>),
    Chunks(Chunks),
}

/// The result of an [`Installation`].
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) manifest: SignedManifest,
    /// The checked code, or why it cannot be used.
    pub(crate) outcome: Result<CheckedCode, String>,
    /// Why it could not be written. The module can be used nevertheless.
    pub(crate) unwritten: Option<io::Error>,
}

/// Code that matches its manifest.
#[derive(Debug)]
pub(crate) struct CheckedCode {
    pub(crate) wasm: Arc<[u8]>,
    pub(crate) module: Option<Module>,
}

impl Store {
    /// Opens the directory, if there is one, and reads the modules in it that are signed with the key of the cluster.
    /// Also returns a message for each module that cannot be used.
    ///
    /// # Errors
    /// If the directory cannot be created or read.
    pub(crate) fn open(dir: Option<&Path>, key: &DeployPublic) -> io::Result<(Store, Vec<Stored>, Vec<String>)> {
        let (mut stored, mut damaged) = (Vec::new(), Vec::new());
        let mut store = Store::default();
        let Some(dir) = dir else { return Ok((store, stored, damaged)) };
        let dir = dir.join("modules");
        private::create_dir(&dir)?;
        damaged.extend(private::close_to_others(&dir));
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "manifest") {
                continue;
            }
            match read_module(&path, key) {
                Ok(module) => stored.push(module),
                Err(error) => {
                    let aside = path.with_extension("manifest.bad");
                    fs::rename(&path, &aside)?;
                    damaged.push(format!(
                        "{} cannot be used ({error}); put aside as {}",
                        path.display(),
                        aside.display()
                    ));
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

    /// The installation of a module with all its chunks.
    pub(crate) fn pulled(&mut self, manifest: SignedManifest, engine: &Engine) -> Installation {
        let chunks = self.partial.remove(&manifest.id).unwrap_or_default();
        Installation { manifest, code: Code::Chunks(chunks), engine: Some(engine.clone()), dir: self.dir.clone() }
    }

    /// The installation of a module that is deployed from this node.
    pub(crate) fn deployed(&self, manifest: SignedManifest, wasm: Arc<[u8]>, engine: Option<&Engine>) -> Installation {
        Installation { manifest, code: Code::Whole(wasm), engine: engine.cloned(), dir: self.dir.clone() }
    }

    /// Keeps the code of an installed module.
    pub(crate) fn keep(&mut self, module: ModuleHash, wasm: Arc<[u8]>) {
        self.whole.insert(module, wasm);
    }

    /// A chunk of a complete module.
    pub(crate) fn chunk(&self, module: &ModuleHash, index: u32) -> Option<Vec<u8>> {
        let wasm = self.whole.get(module)?;
        wasm.chunks(CHUNK_BYTES as usize).nth(index as usize).map(<[u8]>::to_vec)
    }

    /// Removes a module.
    pub(crate) fn remove(&mut self, module: &ModuleHash) {
        self.partial.remove(module);
        self.whole.remove(module);
        if let Some(dir) = &self.dir {
            // If a file remains, it is found and checked at the next start.
            let _ = fs::remove_file(dir.join(format!("{module}.manifest")));
            let _ = fs::remove_file(dir.join(format!("{module}.wasm")));
        }
    }
}

impl Installation {
    /// The installation of a module that was read from the directory.
    pub(crate) fn stored(manifest: SignedManifest, wasm: Arc<[u8]>, engine: &Engine) -> Installation {
        Installation { manifest, code: Code::Whole(wasm), engine: Some(engine.clone()), dir: None }
    }

    /// Checks, compiles and writes the module.
    pub(crate) fn run(self) -> Installed {
        let outcome = check(&self.manifest, self.code, self.engine.as_ref());
        let written = match (&outcome, &self.dir) {
            (Ok(code), Some(dir)) => write_module(dir, &self.manifest, &code.wasm),
            _ => Ok(()),
        };
        Installed { manifest: self.manifest, outcome, unwritten: written.err() }
    }
}

fn check(signed: &SignedManifest, code: Code, engine: Option<&Engine>) -> Result<CheckedCode, String> {
    let manifest = &signed.manifest;
    let wasm = match code {
        Code::Whole(wasm) => wasm,
        Code::Chunks(chunks) => assemble(chunks, manifest.chunks.len() as u32)?,
    };
    if hash(&wasm) != manifest.hash {
        return Err("the code does not match the hash in its manifest".into());
    }
    if manifest.is_tombstone() {
        return Ok(CheckedCode { wasm, module: None });
    }
    let load = |engine: &Engine| engine.load_known(&wasm, &manifest.functions);
    let module = engine.map(load).transpose().map_err(|error| error.to_string())?;
    Ok(CheckedCode { wasm, module })
}

fn assemble(mut chunks: Chunks, count: u32) -> Result<Arc<[u8]>, String> {
    let mut wasm = Vec::new();
    for index in 0..count {
        wasm.extend(chunks.remove(&index).ok_or_else(|| format!("chunk {index} is missing"))?);
    }
    Ok(wasm.into())
}

fn read_module(manifest_path: &Path, key: &DeployPublic) -> Result<Stored, String> {
    let bytes = fs::read(manifest_path).map_err(|error| error.to_string())?;
    let manifest: SignedManifest = minicbor::decode(&bytes).map_err(|_| "not a manifest".to_owned())?;
    manifest.verify(key).map_err(|error| error.to_string())?;
    let wasm = fs::read(manifest_path.with_extension("wasm")).map_err(|error| format!("its code: {error}"))?;
    if hash(&wasm) != manifest.manifest.hash {
        return Err("its code does not match its hash".into());
    }
    Ok(Stored { manifest, wasm: wasm.into() })
}

fn write_module(dir: &Path, signed: &SignedManifest, wasm: &[u8]) -> io::Result<()> {
    write_file(&dir.join(format!("{}.wasm", signed.id)), wasm)?;
    write_file(&dir.join(format!("{}.manifest", signed.id)), Cbor::encode(signed).as_bytes())?;
    File::open(dir)?.sync_all()
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    private::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}
