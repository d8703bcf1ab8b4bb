//! Limits of a module and its runs.

/// Limits of modules and runs. All are hard: a module or run that exceeds one is refused or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest module, in bytes of Wasm.
    pub module_bytes_max: usize,
    /// Largest linear memory of an instance, in bytes.
    pub memory_bytes_max: usize,
    /// Most elements of a table.
    pub table_elements_max: usize,
    /// Bytes of the operand stack when an instance starts.
    pub stack_bytes_min: usize,
    /// Largest operand stack, in bytes.
    pub stack_bytes_max: usize,
    /// Deepest nesting of calls.
    pub call_depth_max: usize,
    /// How many stacks a module keeps for its next runs: about the number of slots.
    pub stacks_cached_max: usize,
    /// Largest encoded argument list, in bytes. It must fit into the memory together with everything else.
    pub args_bytes_max: usize,
    /// Largest encoded result or error text, in bytes.
    pub result_bytes_max: usize,
    /// Most bytes of log text of one run. The rest is dropped.
    pub log_bytes_max: usize,
}

impl Limits {
    /// For a Raspberry Pi or a PC.
    #[must_use]
    pub const fn host() -> Self {
        Self {
            module_bytes_max: 4 << 20,
            memory_bytes_max: 16 << 20,
            table_elements_max: 10_000,
            stack_bytes_min: 4 << 10,
            stack_bytes_max: 1 << 20,
            call_depth_max: 1000,
            stacks_cached_max: 8,
            args_bytes_max: 64 << 20,
            result_bytes_max: 64 << 20,
            log_bytes_max: 64 << 10,
        }
    }

    /// For a microcontroller with about 300 KB of RAM.
    #[must_use]
    pub const fn chip() -> Self {
        Self {
            module_bytes_max: 64 << 10,
            memory_bytes_max: 64 << 10,
            table_elements_max: 128,
            stack_bytes_min: 512,
            stack_bytes_max: 8 << 10,
            call_depth_max: 64,
            stacks_cached_max: 1,
            args_bytes_max: 16 << 10,
            result_bytes_max: 16 << 10,
            log_bytes_max: 2 << 10,
        }
    }
}
