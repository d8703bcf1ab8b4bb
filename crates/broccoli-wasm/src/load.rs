//! Engines and modules: the checks before any code of a module runs.
//!
//! Owns the checks at load. A [`Module`] has passed all of them, was instantiated once as a test, and never changes.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use broccoli_abi::{ABI_VERSION, DescribeError, EXPORT_TASK_PREFIX, Function, Functions};

use crate::engine::{Compiled, Compiler};
use crate::section::Sections;
use crate::{Failure, Host, Limits, Run, Spare};

/// Loads modules under fixed [`Limits`]. Cheap: keep one for each node.
#[derive(Clone, Debug)]
pub struct Engine {
    limits: Limits,
    compiler: Compiler,
}

impl Engine {
    /// An engine that loads and runs modules within `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, compiler: Compiler::new(&limits) }
    }

    /// The limits of this engine.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks and compiles a module, and instantiates it once as a test.
    ///
    /// # Errors
    /// Why the module cannot run here.
    pub fn load(&self, wasm: &[u8]) -> Result<Module, LoadError> {
        let functions = self.sections(wasm)?;
        self.compile(wasm, functions)
    }

    /// Like [`Engine::load`], for a module whose functions are known. The module shares the list of functions.
    ///
    /// # Errors
    /// Why the module cannot run here, also if it does not describe these functions.
    pub fn load_known(&self, wasm: &[u8], functions: &Functions) -> Result<Module, LoadError> {
        if self.sections(wasm)? != *functions {
            return Err(LoadError::OtherFunctions);
        }
        self.compile(wasm, functions.clone())
    }

    /// Checks what the Wasm engine does not check, and returns the functions.
    fn sections(&self, wasm: &[u8]) -> Result<Functions, LoadError> {
        let (bytes, max) = (wasm.len(), self.limits.module_bytes_max);
        if bytes > max {
            return Err(LoadError::TooLarge { bytes, max });
        }
        let sections = Sections::read(wasm)?;
        if sections.has_start { Err(LoadError::StartFunction) } else { Ok(sections.functions) }
    }

    fn compile(&self, wasm: &[u8], functions: Functions) -> Result<Module, LoadError> {
        let compiled = self.compiler.compile(wasm, &functions, &self.limits)?;
        Ok(Module { inner: Arc::new(Inner { limits: self.limits, functions, compiled }) })
    }
}

/// A checked and compiled module. Clones share it.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) inner: Arc<Inner>,
}

impl Module {
    /// Names, parameters and results of the functions.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.inner.functions
    }

    /// The limits of its runs.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Prepares one run of `function` in a fresh instance. Nothing of the guest runs before the first [`Run::step`].
    /// `args` is one CBOR array of definite length.
    ///
    /// # Errors
    /// There is no such function; the arguments do not match it or exceed a limit; the instance does not start, for
    /// example because memory is short.
    pub fn start<H: Host + 'static>(&self, function: &str, args: &[u8], host: H) -> Result<Run<H>, Failure> {
        self.start_with(function, args, host, &mut Spare::new())
    }

    /// Like [`Module::start`], with the instance that [`Run::keep`] kept, if it is of this module. The run finds it as
    /// fresh as a new one.
    ///
    /// # Errors
    /// As of [`Module::start`].
    pub fn start_with<H: Host + 'static>(
        &self,
        function: &str,
        args: &[u8],
        host: H,
        spare: &mut Spare<H>,
    ) -> Result<Run<H>, Failure> {
        let inner = &self.inner;
        let index = inner
            .functions
            .iter()
            .position(|f| f.name == function)
            .ok_or_else(|| Failure::UnknownFunction(function.into()))?;
        let (bytes, max) = (args.len(), inner.limits.args_bytes_max);
        if bytes > max {
            return Err(Failure::ArgsTooLarge { bytes, max });
        }
        inner.functions[index].check_args(args).map_err(Failure::BadArgs)?;
        Run::new(self.clone(), index, args, host, spare)
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) limits: Limits,
    pub(crate) functions: Functions,
    pub(crate) compiled: Compiled,
}

/// The name under which a function is exported.
pub(crate) fn export_name(function: &Function) -> String {
    [EXPORT_TASK_PREFIX, &function.name].concat()
}

/// Why a module is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is larger than the limit.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// It does not start like a Wasm module.
    NotWasm,
    /// It ends inside a section.
    Truncated,
    /// It is not valid Wasm, or uses a feature that is switched off. The text says which.
    Invalid(String),
    /// A custom section of the ABI is missing or empty.
    MissingSection(&'static str),
    /// It was built for another version of the ABI.
    AbiVersion(u8),
    /// Its section `broccoli.tasks` is malformed.
    Describe(DescribeError),
    /// It does not describe the functions of its manifest.
    OtherFunctions,
    /// It imports something that is not allowed: `module.name`.
    ForbiddenImport(String),
    /// It imports this with a wrong signature.
    ImportType(String),
    /// It does not export this.
    MissingExport(String),
    /// It exports this with a wrong signature.
    ExportType(String),
    /// It exports this task without describing it.
    Undescribed(String),
    /// It has a start function, which would run without limits.
    StartFunction,
    /// Its initial memory is larger than the limit.
    MemoryTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// An initial table is larger than the limit, or there are too many tables.
    TableTooLarge {
        /// The limit in elements.
        max: usize,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => {
                write!(f, "the module has {bytes} bytes, the limit is {max}")
            }
            Self::NotWasm => write!(f, "this is not a Wasm module"),
            Self::Truncated => write!(f, "the module ends inside a section"),
            Self::Invalid(reason) => write!(f, "invalid module: {reason}"),
            Self::MissingSection(name) => {
                write!(f, "the module has no section {name}; it needs a task")
            }
            Self::AbiVersion(version) => {
                write!(f, "the module was built for task ABI {version}, this node has {ABI_VERSION}")
            }
            Self::OtherFunctions => write!(f, "the functions of the module differ from those in its manifest"),
            Self::Describe(reason) => write!(f, "bad section broccoli.tasks: {reason}"),
            Self::ForbiddenImport(name) => write!(f, "forbidden import {name}"),
            Self::ImportType(name) => write!(f, "import {name} has the wrong signature"),
            Self::MissingExport(name) => write!(f, "missing export {name}"),
            Self::ExportType(name) => write!(f, "export {name} has the wrong signature"),
            Self::Undescribed(name) => {
                write!(f, "export {name} has no entry in section broccoli.tasks")
            }
            Self::StartFunction => write!(f, "start functions are not allowed; use _initialize"),
            Self::MemoryTooLarge { max } => {
                write!(f, "the module's memory is larger than the limit of {max} bytes")
            }
            Self::TableTooLarge { max } => {
                write!(f, "the module's tables are larger than the limit of {max} elements")
            }
        }
    }
}

impl core::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Describe(error) => Some(error),
            _ => None,
        }
    }
}
