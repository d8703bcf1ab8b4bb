//! The engine wasmi, an interpreter, which every node uses.
//!
//! Owns the configuration of wasmi, the mapping of its errors, and the suspended call.

mod imports;
mod start;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::{array, mem};

use broccoli_abi::{
    EXPORT_ALLOC, EXPORT_INITIALIZE, EXPORT_MEMORY, EXPORT_TASK_PREFIX, Function, HostAnswer, IMPORT_MODULE,
    SubmitAnswer,
};
use wasmi::errors::{ErrorKind, InstantiationError};
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Error, Extern, ExternType, FuncType, Memory, ResumableCall,
    ResumableCallHostTrap, ResumableCallOutOfFuel, Store, TrapCode, Val, ValType,
};

use self::imports::{Import, Room, State, Suspend};
use self::start::Start;
use super::Stop;
use crate::load::export_name;
use crate::restorable::is_restorable;
use crate::{Failure, Host, Limits, LoadError, NoHost};

/// The unit in which wasmi counts the height of a stack, although its API says bytes.
const CELL_BYTES: usize = 8;

/// Compiles modules under fixed limits.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    config: Config,
}

/// A module that can be instantiated.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Whether it exports `_initialize`.
    pub(crate) initialize: bool,
    /// How an instance starts, if it can be made fresh again.
    start: Option<Start>,
    imports: Vec<Import>,
    engine: wasmi::Engine,
    module: wasmi::Module,
}

/// One instance, and its current call.
pub(crate) struct Instance<H> {
    store: Store<State<H>>,
    instance: wasmi::Instance,
    memory: Memory,
    call: Call,
    /// The answer for a call that waits for one.
    answer: i64,
    /// Where to write the text of a refusal by the board.
    room: Room,
    /// Whether the call returns a number.
    gives: bool,
    fuel_used: u64,
}

/// A suspended call.
enum Call {
    None,
    OutOfFuel(ResumableCallOutOfFuel),
    Asleep(ResumableCallHostTrap),
    /// It has submitted a canvas, or asked the board.
    Asked(ResumableCallHostTrap),
}

fn cells(bytes: usize) -> usize {
    (bytes / CELL_BYTES).max(1)
}

impl Compiler {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .ignore_custom_sections(true)
            // A call that runs out of fuel while another function is being compiled cannot be resumed.
            .compilation_mode(CompilationMode::Eager)
            .enforced_limits(EnforcedLimits::strict())
            .wasm_custom_page_sizes(true)
            .wasm_multi_memory(false)
            .wasm_tail_call(false)
            .set_min_stack_height(cells(limits.stack_bytes_min.min(limits.stack_bytes_max)))
            .set_max_stack_height(cells(limits.stack_bytes_max))
            .set_max_recursion_depth(limits.call_depth_max)
            .set_max_cached_stacks(limits.stacks_cached_max);
        Self { config }
    }

    /// Compiles a module and instantiates it once as a test.
    ///
    /// # Errors
    /// It is not valid Wasm, or its imports and exports are not those of the ABI.
    pub(crate) fn compile(&self, wasm: &[u8], functions: &[Function], limits: &Limits) -> Result<Compiled, LoadError> {
        // One engine for each module: compiled code lives as long as its engine, and a replaced module must not stay in
        // memory.
        let engine = wasmi::Engine::new(&self.config);
        let invalid = |e: Error| LoadError::Invalid(e.to_string());
        // The compiler asserts conditions that the validator checks only later. So validate everything first.
        wasmi::Module::validate(&engine, wasm).map_err(invalid)?;
        let module = wasmi::Module::new(&engine, wasm).map_err(invalid)?;
        let imports = imports(&module)?;
        let initialize = check_exports(&module, functions)?;
        let mut compiled = Compiled { initialize, start: None, imports, engine, module };
        let (store, instance) = compiled.instantiate(NoHost, limits).map_err(|error| refused(&error, limits))?;
        if is_restorable(wasm) {
            compiled.start = Start::of(&store, instance);
        }
        Ok(compiled)
    }
}

fn refused(error: &Error, limits: &Limits) -> LoadError {
    match error.kind() {
        ErrorKind::Instantiation(InstantiationError::FailedToInstantiateMemory(_)) => {
            LoadError::MemoryTooLarge { max: limits.memory_bytes_max }
        }
        ErrorKind::Instantiation(
            InstantiationError::FailedToInstantiateTable(_) | InstantiationError::TooManyTables,
        ) => LoadError::TableTooLarge { max: limits.table_elements_max },
        _ => LoadError::Invalid(error.to_string()),
    }
}

impl Compiled {
    /// A fresh instance. Nothing of the guest has run.
    ///
    /// # Errors
    /// It does not start, for example because memory is short. When the module was loaded, it started within the same
    /// limits.
    pub(crate) fn start<H: Host + 'static>(&self, host: H, limits: &Limits) -> Result<Box<Instance<H>>, Failure> {
        let (store, instance) = self.instantiate(host, limits).map_err(not_started)?;
        let memory = instance.get_memory(&store, EXPORT_MEMORY);
        // Exports are checked when a module is loaded, so this would be an error of the engine.
        let memory = memory.ok_or_else(|| Failure::Trap("the memory export is gone".into()))?;
        let (call, room) = (Call::None, Room::default());
        Ok(Box::new(Instance { store, instance, memory, call, answer: 0, room, gives: false, fuel_used: 0 }))
    }

    /// Whether [`Compiled::restore`] is possible. The last call of the instance must have returned.
    pub(crate) fn can_restore<H: Host + 'static>(&self, instance: &Instance<H>) -> bool {
        self.start.as_ref().is_some_and(|start| start.memory_bytes == instance.memory().len())
    }

    /// Makes what the guest can change in an instance of this module as it is in a new one. Returns false if that is
    /// not possible: drop the instance then. See also [`Instance::begin`].
    pub(crate) fn restore<H: Host + 'static>(&self, instance: &mut Instance<H>) -> bool {
        let Instance { store, instance: exports, memory, .. } = instance;
        self.start.as_ref().is_some_and(|start| start.restore(store, *exports, *memory))
    }

    fn instantiate<H: Host + 'static>(
        &self,
        host: H,
        limits: &Limits,
    ) -> Result<(Store<State<H>>, wasmi::Instance), Error> {
        let mut store = Store::new(&self.engine, State::new(host, limits));
        store.limiter(|state| &mut state.guard);
        let imports: Vec<Extern> = self.imports.iter().map(|import| Extern::Func(import.bind(&mut store))).collect();
        let instance = wasmi::Instance::new(&mut store, &self.module, &imports)?;
        Ok((store, instance))
    }
}

impl<H: Host + 'static> Instance<H> {
    /// Forgets the last run: replaces its host, its limits and its call.
    pub(crate) fn begin(&mut self, host: H, limits: &Limits) {
        *self.store.data_mut() = State::new(host, limits);
        (self.call, self.answer, self.room) = (Call::None, 0, Room::default());
        (self.gives, self.fuel_used) = (false, 0);
    }

    /// Calls an export with these arguments and this much fuel. It returns at most one number.
    pub(crate) fn call(&mut self, export: &str, args: &[u32], gives: bool, fuel: u64) -> Stop {
        let Some(func) = self.instance.get_func(&self.store, export) else {
            return Stop::Failed(Failure::Trap(format!("the export {export} is gone")));
        };
        self.gives = gives;
        let inputs: [Val; 2] = array::from_fn(|at| Val::I32(args.get(at).copied().unwrap_or(0) as i32));
        self.run(fuel, |store, outputs| func.call_resumable(store, &inputs[..args.len().min(2)], outputs))
    }

    /// Resumes the suspended call. A single instruction that needs more fuel than that (a large copy) gets it.
    pub(crate) fn resume(&mut self, fuel: u64) -> Stop {
        let answer = [Val::I64(self.answer)];
        match mem::replace(&mut self.call, Call::None) {
            Call::None => Stop::Failed(Failure::Ended),
            Call::OutOfFuel(call) => {
                self.run(fuel.max(call.required_fuel()), |store, outputs| call.resume(store, outputs))
            }
            Call::Asleep(call) => self.run(fuel, |store, outputs| call.resume(store, &[], outputs)),
            Call::Asked(call) => self.run(fuel, |store, outputs| call.resume(store, &answer, outputs)),
        }
    }

    /// Answers [`Stop::Submitted`] and [`Stop::Asked`]. If it is not called, the task gets the answer that the node
    /// takes no jobs, or that the board refuses.
    pub(crate) fn answer(&mut self, answer: i64) {
        self.answer = answer;
    }

    /// Answers [`Stop::Asked`] with the reason of a refusal, cut to the room that the task gave.
    pub(crate) fn refuse(&mut self, why: &str) {
        self.answer = self.room.refuse(self.memory, &mut self.store, why).pack();
    }

    /// Adds a line to the log of the task, within its limit.
    pub(crate) fn log(&mut self, text: &str) {
        self.store.data_mut().log(text);
    }

    /// Fuel used so far, about one unit for each instruction.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    pub(crate) fn host(&self) -> &H {
        &self.store.data().host
    }

    pub(crate) fn host_mut(&mut self) -> &mut H {
        &mut self.store.data_mut().host
    }

    pub(crate) fn into_host(self) -> H {
        self.store.into_data().host
    }

    /// The memory of the guest.
    pub(crate) fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    /// The memory of the guest.
    pub(crate) fn memory_mut(&mut self) -> &mut [u8] {
        self.memory.data_mut(&mut self.store)
    }

    /// The failure of a task that did not get the memory that it asked for last.
    pub(crate) fn out_of_memory(&self) -> Failure {
        let guard = &self.store.data().guard;
        let limit = (!guard.out_of_memory).then_some(guard.memory_bytes_max);
        Failure::OutOfMemory { wanted: guard.wanted_bytes, limit }
    }

    /// Enters the guest. Not inlined: other stack frames of a run must not stay below the guest.
    #[inline(never)]
    fn run(
        &mut self,
        fuel: u64,
        enter: impl FnOnce(&mut Store<State<H>>, &mut [Val]) -> Result<ResumableCall, Error>,
    ) -> Stop {
        if let Err(error) = self.store.set_fuel(fuel) {
            return Stop::Failed(failure(error));
        }
        let mut output = [Val::I64(0)];
        let called = enter(&mut self.store, &mut output[..usize::from(self.gives)]);
        let left = self.store.get_fuel().unwrap_or(0);
        self.fuel_used = self.fuel_used.saturating_add(fuel.saturating_sub(left));
        self.stop(called, output)
    }

    fn stop(&mut self, called: Result<ResumableCall, Error>, output: [Val; 1]) -> Stop {
        match called {
            Ok(ResumableCall::Finished) => Stop::Returned(match output {
                [Val::I32(value)] => value.into(),
                [Val::I64(value)] => value,
                _ => 0,
            }),
            Ok(ResumableCall::OutOfFuel(call)) => {
                self.call = Call::OutOfFuel(call);
                Stop::Yielded
            }
            Ok(ResumableCall::HostTrap(call)) => self.suspend(call),
            Err(_) if self.store.data().guard.out_of_memory => Stop::Failed(self.out_of_memory()),
            Err(error) if is_denied(&error) => Stop::Failed(self.out_of_memory()),
            Err(error) => Stop::Failed(failure(error)),
        }
    }

    /// Handles an import that ended or suspended the call.
    fn suspend(&mut self, call: ResumableCallHostTrap) -> Stop {
        match call.host_error().downcast_ref() {
            Some(&Suspend::Sleep { ms }) => {
                self.call = Call::Asleep(call);
                Stop::Asleep { ms }
            }
            Some(Suspend::Submit { canvas }) => {
                let canvas = canvas.clone();
                self.answer = SubmitAnswer::NoJobs.code();
                self.call = Call::Asked(call);
                Stop::Submitted(canvas)
            }
            Some(&Suspend::Call { call: asked, room }) => {
                self.answer = HostAnswer::Refused { text_len: 0 }.pack();
                self.room = room;
                self.call = Call::Asked(call);
                Stop::Asked(asked)
            }
            Some(Suspend::Panic { text, line }) => Stop::Failed(Failure::Panic { text: text.clone(), line: *line }),
            _ => Stop::Failed(Failure::Trap(call.host_error().to_string())),
        }
    }
}

fn failure(error: Error) -> Failure {
    match error.as_trap_code() {
        Some(TrapCode::StackOverflow) => Failure::StackOverflow,
        _ => Failure::Trap(error.to_string()),
    }
}

/// Whether the guest was refused memory or a table.
fn is_denied(error: &Error) -> bool {
    error.as_trap_code() == Some(TrapCode::GrowthOperationLimited)
}

fn not_started(error: Error) -> Failure {
    use InstantiationError::{FailedToInstantiateMemory, FailedToInstantiateTable};
    match error.kind() {
        ErrorKind::Instantiation(FailedToInstantiateMemory(_) | FailedToInstantiateTable(_)) => {
            Failure::OutOfMemory { wanted: 0, limit: None }
        }
        _ => failure(error),
    }
}

fn imports(wasm: &wasmi::Module) -> Result<Vec<Import>, LoadError> {
    wasm.imports()
        .map(|import| {
            let name = || format!("{}.{}", import.module(), import.name());
            let found = match import.module() {
                IMPORT_MODULE => Import::find(import.name()),
                _ => None,
            };
            let known = found.ok_or_else(|| LoadError::ForbiddenImport(name()))?;
            match import.ty() {
                ExternType::Func(ty) if *ty == known.ty() => Ok(known),
                _ => Err(LoadError::ImportType(name())),
            }
        })
        .collect()
}

/// Checks that the module exports everything that the ABI requires. Returns whether it exports `_initialize`.
fn check_exports(wasm: &wasmi::Module, functions: &[Function]) -> Result<bool, LoadError> {
    use ValType::{I32, I64};
    match wasm.get_export(EXPORT_MEMORY) {
        Some(ExternType::Memory(_)) => {}
        Some(_) => return Err(LoadError::ExportType(EXPORT_MEMORY.into())),
        None => return Err(LoadError::MissingExport(EXPORT_MEMORY.into())),
    }
    if !has_func(wasm, EXPORT_ALLOC, &FuncType::new([I32], [I32]))? {
        return Err(LoadError::MissingExport(EXPORT_ALLOC.into()));
    }
    let task = FuncType::new([I32, I32], [I64]);
    for name in functions.iter().map(export_name) {
        if !has_func(wasm, &name, &task)? {
            return Err(LoadError::MissingExport(name));
        }
    }
    for export in wasm.exports() {
        let name = export.name().strip_prefix(EXPORT_TASK_PREFIX);
        if name.is_some_and(|name| !functions.iter().any(|f| f.name == name)) {
            return Err(LoadError::Undescribed(export.name().into()));
        }
    }
    has_func(wasm, EXPORT_INITIALIZE, &FuncType::new([], []))
}

fn has_func(wasm: &wasmi::Module, name: &str, wanted: &FuncType) -> Result<bool, LoadError> {
    match wasm.get_export(name) {
        None => Ok(false),
        Some(ExternType::Func(ty)) if ty == *wanted => Ok(true),
        Some(_) => Err(LoadError::ExportType(name.into())),
    }
}
