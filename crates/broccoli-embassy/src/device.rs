//! The chip and the board, as a node needs to know them.

use core::fmt;

use broccoli_abi::HostCall;

/// The processor, as Rust's standard library names it.
pub(crate) const ARCH: &str = if cfg!(target_arch = "riscv32") {
    "riscv32"
} else if cfg!(target_arch = "xtensa") {
    "xtensa"
} else {
    "other"
};

/// Executes the call of a task to the board, without waiting. An error is the reason why it is not possible.
pub(crate) type Board = fn(HostCall) -> Result<i32, &'static str>;

/// The chip and its board. The firmware makes it.
#[derive(Clone, Debug)]
pub struct Device {
    /// From a true random source, new at each start: it is half of the nonce of every packet. A chip without such a
    /// source must not start a node.
    pub epoch: [u8; 16],
    /// From the same source.
    pub seed: u64,
    /// Unix time in milliseconds, if the chip knows it.
    pub unix_ms: fn() -> Option<u64>,
    /// The state of the heap.
    pub memory: fn() -> Memory,
    /// Executes the call of a task to the board, without waiting. An error is the reason why it is not possible.
    pub board: Board,
    /// Called when the node is connected to its MQTT server, and when the connection is lost. For a LED.
    pub connected: fn(bool),
    /// The kind of board, for people: `esp32c6`.
    pub board_kind: &'static str,
    /// The capabilities of the board, for `.set(on="led")`: see [`crate::capability`].
    pub capabilities: &'static [&'static str],
}

/// The state of a heap, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Allocated now.
    pub used: usize,
    /// Most that was allocated at a time.
    pub peak: usize,
    /// Free now.
    pub free: usize,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes used, {} at most, {} free", self.used, self.peak, self.free)
    }
}
