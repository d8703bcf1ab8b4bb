//! The functions that jobs call. Each is stored once and shared by all jobs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use broccoli_abi::Function;
use broccoli_proto::message::LeasedFunction;
use broccoli_proto::{Cbor, ModuleHash};
use litemap::LiteMap;

use crate::canvas::{Callee, Target};
use crate::origin::journal::records::Binding;

/// Above this number, functions that no job calls are dropped; if all are in use, further ones are not shared.
const SHARED_MAX: usize = 1_024;

/// The function that a name in a canvas is bound to.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The name in the canvas.
    pub(crate) asked: String,
    /// For the plan.
    pub(crate) callee: Arc<Callee>,
    /// For workers.
    pub(crate) leased: Arc<LeasedFunction>,
    /// For the journal: an encoded [`Binding`].
    pub(crate) record: Cbor,
}

/// The functions of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    by_name: LiteMap<String, Vec<Arc<Bound>>>,
    count: usize,
}

impl Bound {
    fn new(asked: &str, module: ModuleHash, callee: Callee) -> Bound {
        let (full, function) = (callee.name.clone(), callee.function.clone());
        let record = Cbor::encode(&Binding { asked: asked.into(), full, module, function });
        let leased = Arc::new(LeasedFunction { module, name: callee.function.name.clone() });
        Bound { asked: asked.into(), callee: Arc::new(callee), leased, record }
    }

    /// The form that a plan needs; `key` finds this function again.
    pub(crate) fn target(&self, key: usize) -> Target {
        Target { callee: Arc::clone(&self.callee), key: key as u32 }
    }
}

impl Functions {
    /// Binds a name to a function of a module. `full` is `module.function`.
    pub(crate) fn bind(
        &mut self,
        asked: &str,
        module: ModuleHash,
        function: &Function,
        full: impl FnOnce() -> String,
    ) -> Arc<Bound> {
        let same = |bound: &&Arc<Bound>| bound.leased.module == module && bound.leased.name == function.name;
        match self.by_name.get(asked).and_then(|known| known.iter().find(same)) {
            Some(known) => Arc::clone(known),
            None => self.share(Bound::new(asked, module, Callee::new(full(), function))),
        }
    }

    /// Restores a binding that an earlier incarnation has noted.
    pub(crate) fn bind_again(&mut self, binding: Binding) -> Arc<Bound> {
        let Binding { asked, full, module, function } = binding;
        let callee = Callee::new(full, &function);
        let same = |bound: &&Arc<Bound>| bound.leased.module == module && *bound.callee == callee;
        match self.by_name.get(&asked).and_then(|known| known.iter().find(same)) {
            Some(known) => Arc::clone(known),
            None => self.share(Bound::new(&asked, module, callee)),
        }
    }

    fn share(&mut self, bound: Bound) -> Arc<Bound> {
        let bound = Arc::new(bound);
        if self.count >= SHARED_MAX {
            self.drop_unused();
        }
        if self.count < SHARED_MAX {
            self.by_name.entry(bound.asked.clone()).or_default().push(Arc::clone(&bound));
            self.count += 1;
        }
        bound
    }

    fn drop_unused(&mut self) {
        for (_, known) in &mut self.by_name {
            known.retain(|bound| Arc::strong_count(bound) > 1);
        }
        self.by_name.retain(|_, known| !known.is_empty());
        self.count = self.by_name.values().map(Vec::len).sum();
    }
}
