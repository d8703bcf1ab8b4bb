//! A board in memory. Programs can watch what tasks write, and set what tasks read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broccoli_abi::HostCall;
use tokio::sync::broadcast;

use super::BoardError;

/// It has the pins 0 to 27, like the header of a Raspberry Pi.
const PINS: usize = 28;
/// It has the voltage channels 0 to 3.
const CHANNELS: usize = 4;
/// The temperature at the start, in thousandths of a degree Celsius.
const TEMPERATURE: i32 = 21_500;
/// Number of changes that are kept for each watcher. A slow watcher loses older ones.
const CHANGES_MAX: usize = 1_024;

/// A change that a task has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardChange {
    /// The LED was switched on or off.
    Led(bool),
    /// A pin was set high or low.
    Pin(u16, bool),
}

/// A simulated board. Clones refer to the same board.
///
/// ```
/// use broccoli_node::board::{Board, SimulatedBoard};
/// use broccoli_node::NodeHandle;
///
/// let board = SimulatedBoard::new();
/// board.set_pin(4, true); // like a pressed button
/// let builder = NodeHandle::builder().slots(1).board(Board::Simulated(board.clone()));
/// assert!(!board.led());
/// ```
#[derive(Clone, Debug)]
pub struct SimulatedBoard {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<BoardChange>,
}

#[derive(Debug)]
struct State {
    led: bool,
    /// Whether each pin is high.
    pins: [bool; PINS],
    millivolts: [i32; CHANNELS],
    temperature: i32,
}

impl Default for SimulatedBoard {
    fn default() -> SimulatedBoard {
        SimulatedBoard::new()
    }
}

impl SimulatedBoard {
    /// LED off, all pins low, all voltages 0, 21.5 °C.
    pub fn new() -> SimulatedBoard {
        let state = State { led: false, pins: [false; PINS], millivolts: [0; CHANNELS], temperature: TEMPERATURE };
        SimulatedBoard { state: Arc::new(Mutex::new(state)), changes: broadcast::Sender::new(CHANGES_MAX) }
    }

    /// All writes of tasks from now on, also those that change nothing.
    pub fn watch(&self) -> broadcast::Receiver<BoardChange> {
        self.changes.subscribe()
    }

    /// Whether the LED is on.
    pub fn led(&self) -> bool {
        self.state().led
    }

    /// Whether the pin exists and is high.
    pub fn pin(&self, pin: u16) -> bool {
        self.state().pins.get(usize::from(pin)).is_some_and(|high| *high)
    }

    /// Sets a pin from outside. Nothing happens if the board does not have it.
    pub fn set_pin(&self, pin: u16, high: bool) {
        if let Some(at) = self.state().pins.get_mut(usize::from(pin)) {
            *at = high;
        }
    }

    /// Sets the voltage of a channel. Nothing happens if the board does not have it.
    pub fn set_millivolts(&self, channel: u8, millivolts: i32) {
        if let Some(at) = self.state().millivolts.get_mut(usize::from(channel)) {
            *at = millivolts;
        }
    }

    /// Sets the temperature, in thousandths of a degree Celsius.
    pub fn set_temperature(&self, thousandths: i32) {
        self.state().temperature = thousandths;
    }

    pub(super) fn perform(&self, call: HostCall) -> Result<i32, BoardError> {
        let mut state = self.state();
        match call {
            HostCall::LedSet { on } => {
                state.led = on;
                self.tell(BoardChange::Led(on));
                Ok(0)
            }
            HostCall::GpioRead { pin } => {
                let level = state.pins.get(usize::from(pin));
                level.map(|high| i32::from(*high)).ok_or(no_pin(pin))
            }
            HostCall::GpioWrite { pin, high } => {
                *state.pins.get_mut(usize::from(pin)).ok_or(no_pin(pin))? = high;
                self.tell(BoardChange::Pin(pin, high));
                Ok(0)
            }
            HostCall::AdcRead { channel } => {
                let millivolts = state.millivolts.get(usize::from(channel));
                millivolts.copied().ok_or(BoardError::NoChannel(channel))
            }
            HostCall::TemperatureRead => Ok(state.temperature),
        }
    }

    /// Called while the state is locked, so that changes are sent in the order in which they were made.
    fn tell(&self, change: BoardChange) {
        // An error means that the receiver was dropped.
        let _ = self.changes.send(change);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_pin(pin: u16) -> BoardError {
    BoardError::NoPin { pin, count: PINS as u32 }
}
