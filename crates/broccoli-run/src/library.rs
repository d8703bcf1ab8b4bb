//! The code that a node can call by module id, without the functions of the shell.

use alloc::sync::Arc;

use broccoli_proto::ModuleHash;
use broccoli_wasm::Module;
use litemap::LiteMap;

use crate::builtin::Builtins;
use crate::host::Spare;

/// The modules that can be called.
#[derive(Debug)]
pub struct Library {
    builtins: Arc<Builtins>,
    modules: LiteMap<ModuleHash, Module>,
    /// Not of a removed module, which it would hold in memory.
    spare: Spare,
}

/// The code whose function an [`crate::Execution`] calls.
#[derive(Clone, Debug)]
pub enum Code {
    /// A deployed module.
    Wasm(Module),
    /// A built-in module.
    Builtin(ModuleHash, Arc<Builtins>),
    /// Functions of the shell, which gets each call: [`crate::Ask::Function`].
    Shell,
}

impl Library {
    /// A library with the built-in modules only.
    #[must_use]
    pub fn new(builtins: Builtins) -> Library {
        Library { builtins: Arc::new(builtins), modules: LiteMap::new_vec(), spare: Spare::default() }
    }

    /// The module with this id, if it can be called.
    #[must_use]
    pub fn code(&self, id: &ModuleHash) -> Option<Code> {
        match self.modules.get(id) {
            Some(module) => Some(Code::Wasm(module.clone())),
            None if self.builtins.has(id) => Some(Code::Builtin(*id, self.builtins.clone())),
            None => None,
        }
    }

    /// Whether a module can be called.
    #[must_use]
    pub fn has(&self, id: &ModuleHash) -> bool {
        self.modules.contains_key(id) || self.builtins.has(id)
    }

    /// Adds a module.
    pub fn add(&mut self, id: ModuleHash, module: Module) {
        self.modules.insert(id, module);
        self.spare.clear();
    }

    /// Removes a module. Its runs continue.
    pub fn remove(&mut self, id: &ModuleHash) {
        self.modules.remove(id);
        self.spare.clear();
    }

    /// Removes all modules except this one, to free memory. Their runs continue.
    pub fn remove_others(&mut self, id: &ModuleHash) {
        self.modules.retain(|other, _| other == id);
        self.spare.clear();
    }

    /// The instance of the last call.
    pub fn spare(&mut self) -> &mut Spare {
        &mut self.spare
    }
}
