//! The instance of the last run, for the next one.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::engine::Instance;
use crate::{Failure, Host, Module};

/// Keeps at most one instance, whose run has ended, for the next run of the same module. Before that run, the instance
/// is made as fresh as a new one, which takes less time.
///
/// It holds the module and the memory of the instance. Use one for each thread that runs tasks.
pub struct Spare<H> {
    kept: Option<(Module, Box<Instance<H>>)>,
}

impl<H> Spare<H> {
    /// Without an instance.
    #[must_use]
    pub const fn new() -> Self {
        Self { kept: None }
    }

    /// Whether no instance is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// Frees the instance.
    pub fn clear(&mut self) {
        self.kept = None;
    }
}

impl<H: Host + 'static> Spare<H> {
    /// A fresh instance: the kept one if it is of this module, otherwise a new one. No other one is kept meanwhile.
    pub(crate) fn instance(&mut self, module: &Module, host: H) -> Result<Box<Instance<H>>, Failure> {
        let inner = &module.inner;
        let kept = self.kept.take().filter(|(of, _)| Arc::ptr_eq(&of.inner, inner));
        if let Some((_, mut instance)) = kept
            && inner.compiled.restore(&mut instance)
        {
            instance.begin(host, &inner.limits);
            return Ok(instance);
        }
        inner.compiled.start(host, &inner.limits)
    }

    /// Keeps an instance whose last call returned.
    pub(crate) fn keep(&mut self, module: Module, instance: Box<Instance<H>>) {
        if module.inner.compiled.can_restore(&instance) {
            self.kept = Some((module, instance));
        }
    }
}

impl<H> Default for Spare<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> fmt::Debug for Spare<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").field("module", &self.kept.as_ref().map(|(module, _)| module)).finish_non_exhaustive()
    }
}
