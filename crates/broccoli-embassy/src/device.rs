//! What a node needs to know of the chip that it runs on.

use core::fmt;

use broccoli_abi::HostCall;

/// The processor, as Rust's standard library calls it elsewhere.
pub(crate) const ARCH: &str = if cfg!(target_arch = "riscv32") {
    "riscv32"
} else if cfg!(target_arch = "xtensa") {
    "xtensa"
} else {
    "other"
};

/// Does what a task asks of the board, at once; an error says why it cannot be done.
pub(crate) type Board = fn(HostCall) -> Result<i32, &'static str>;

/// The chip, as the firmware hands it over.
#[derive(Clone, Debug)]
pub struct Device {
    /// From a true random source, new at each start: half of every packet's nonce. A chip without
    /// one must not start a node.
    pub epoch: [u8; 16],
    /// From the same source.
    pub seed: u64,
    /// The time of day in milliseconds since 1970, if the chip knows it.
    pub unix_ms: fn() -> Option<u64>,
    /// How its heap is.
    pub memory: fn() -> Memory,
    /// Does what a task asks of the board, at once; an error says why it cannot be done.
    pub board: Board,
    /// Told when the node is connected to its MQTT server, and when it is no longer: for a lamp.
    pub connected: fn(bool),
    /// What kind of board it is, for people: `esp32c6`.
    pub board_kind: &'static str,
    /// What the board has, for `.set(on="led")`: see [`crate::capability`].
    pub capabilities: &'static [&'static str],
}

/// State of a heap, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Taken now.
    pub used: usize,
    /// Most that was taken at a time.
    pub peak: usize,
    /// Not taken.
    pub free: usize,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes used, {} at most, {} free", self.used, self.peak, self.free)
    }
}
