//! Whatever a node can call by the id of its module, but for the functions of the shell.

use alloc::sync::Arc;

use broccoli_proto::ModuleHash;
use broccoli_wasm::Module;
use litemap::LiteMap;

use crate::builtin::Builtins;

/// The modules that are ready to be called.
#[derive(Debug)]
pub struct Library {
    builtins: Arc<Builtins>,
    modules: LiteMap<ModuleHash, Module>,
}

/// What an [`crate::Execution`] calls a function of.
#[derive(Clone, Debug)]
pub enum Code {
    /// A deployed module.
    Wasm(Module),
    /// A module that every node has by itself.
    Builtin(ModuleHash, Arc<Builtins>),
    /// A function of the shell, which is asked for each call: [`crate::Ask::Function`].
    Shell,
}

impl Library {
    /// With the built-in modules only.
    #[must_use]
    pub fn new(builtins: Builtins) -> Library {
        Library { builtins: Arc::new(builtins), modules: LiteMap::new_vec() }
    }

    /// The module of this id, if it can be called.
    #[must_use]
    pub fn code(&self, id: &ModuleHash) -> Option<Code> {
        match self.modules.get(id) {
            Some(module) => Some(Code::Wasm(module.clone())),
            None if self.builtins.has(id) => Some(Code::Builtin(*id, self.builtins.clone())),
            None => None,
        }
    }

    /// Whether a module is callable.
    #[must_use]
    pub fn has(&self, id: &ModuleHash) -> bool {
        self.modules.contains_key(id) || self.builtins.has(id)
    }

    /// Makes a module callable.
    pub fn add(&mut self, id: ModuleHash, module: Module) {
        self.modules.insert(id, module);
    }

    /// Forgets a module. Runs of it go on.
    pub fn remove(&mut self, id: &ModuleHash) {
        self.modules.remove(id);
    }

    /// Forgets all modules but this one, so that there is memory. Runs of them go on.
    pub fn remove_others(&mut self, id: &ModuleHash) {
        self.modules.retain(|other, _| other == id);
    }
}
