//! A board in memory: what tasks write can be watched, what they read can be set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broccoli_abi::HostCall;
use tokio::sync::broadcast;

use super::BoardError;

/// Its pins are 0 to 27, as on the header of a Raspberry Pi.
const PINS: usize = 28;
/// Its voltages are 0 to 3.
const CHANNELS: usize = 4;
/// Its temperature at first, in thousandths of a degree Celsius.
const TEMPERATURE: i32 = 21_500;
/// Changes that are kept for who watches; older ones are lost to a slow reader.
const CHANGES_MAX: usize = 1_024;

/// Something that a task has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardChange {
    /// The LED was switched on or off.
    Led(bool),
    /// A pin was made high or low.
    Pin(u16, bool),
}

/// A simulated board. Clones are the same board.
///
/// ```
/// use broccoli_node::board::{Board, SimulatedBoard};
/// use broccoli_node::NodeHandle;
///
/// let board = SimulatedBoard::new();
/// board.set_pin(4, true); // as if somebody pressed a button there
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
    /// Whether each is high.
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
    /// LED off, all pins low, no voltage, 21.5 °C.
    pub fn new() -> SimulatedBoard {
        let state = State { led: false, pins: [false; PINS], millivolts: [0; CHANNELS], temperature: TEMPERATURE };
        SimulatedBoard { state: Arc::new(Mutex::new(state)), changes: broadcast::Sender::new(CHANGES_MAX) }
    }

    /// Everything that tasks write from now on, also if it changes nothing.
    pub fn watch(&self) -> broadcast::Receiver<BoardChange> {
        self.changes.subscribe()
    }

    /// Whether the LED shines.
    pub fn led(&self) -> bool {
        self.state().led
    }

    /// Whether a pin is there and high.
    pub fn pin(&self, pin: u16) -> bool {
        self.state().pins.get(usize::from(pin)).is_some_and(|high| *high)
    }

    /// Sets a pin from outside; nothing happens if the board does not have it.
    pub fn set_pin(&self, pin: u16, high: bool) {
        if let Some(at) = self.state().pins.get_mut(usize::from(pin)) {
            *at = high;
        }
    }

    /// Puts a voltage on a channel; nothing happens if the board does not have it.
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

    /// While the state is locked, so that changes come in the order in which they were made.
    fn tell(&self, change: BoardChange) {
        // Maybe nobody watches.
        let _ = self.changes.send(change);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_pin(pin: u16) -> BoardError {
    BoardError::NoPin { pin, count: PINS as u32 }
}
