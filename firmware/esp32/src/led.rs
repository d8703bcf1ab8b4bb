//! The LED. It shows the state that tasks set. While the node is not connected, the number of blinks says what is
//! missing.

use core::sync::atomic::{AtomicBool, Ordering};

use embassy_time::{Duration, Timer};

use crate::board;

/// The node cannot start, or must leave.
static FAILED: AtomicBool = AtomicBool::new(false);
static HAS_WIFI: AtomicBool = AtomicBool::new(false);
static HAS_SERVER: AtomicBool = AtomicBool::new(false);
/// The state that a task has set.
static IS_ON: AtomicBool = AtomicBool::new(false);

const BLINKS_WIFI: usize = 2;
const BLINKS_SERVER: usize = 3;
const BLINKS_FAILED: usize = 4;
const BLINK: Duration = Duration::from_millis(150);
const PAUSE: Duration = Duration::from_millis(1_200);

/// The node cannot start, or must leave.
pub(crate) fn tell_failure() {
    FAILED.store(true, Ordering::Relaxed);
}

/// Whether Wi-Fi is connected.
pub(crate) fn tell_wifi(connected: bool) {
    HAS_WIFI.store(connected, Ordering::Relaxed);
}

/// Whether the node is connected to the MQTT server.
pub(crate) fn tell_server(connected: bool) {
    HAS_SERVER.store(connected, Ordering::Relaxed);
}

/// Sets the state of the LED for a task. It is visible while nothing is missing.
pub(crate) fn set(on: bool) -> Result<(), &'static str> {
    IS_ON.store(on, Ordering::Relaxed);
    if blinks() == 0 { board::light(on) } else { Ok(()) }
}

/// Blinks while something is missing.
pub(crate) async fn blink() {
    loop {
        let blinks = blinks();
        for _ in 0..blinks {
            for on in [true, false] {
                // A board whose LED does not work shows nothing.
                let _ = board::light(on);
                Timer::after(BLINK).await;
            }
        }
        if blinks > 0 {
            let _ = set(IS_ON.load(Ordering::Relaxed));
        }
        Timer::after(PAUSE).await;
    }
}

fn blinks() -> usize {
    let is = |state: &AtomicBool| state.load(Ordering::Relaxed);
    match (is(&FAILED), is(&HAS_WIFI), is(&HAS_SERVER)) {
        (true, ..) => BLINKS_FAILED,
        (false, false, _) => BLINKS_WIFI,
        (false, true, false) => BLINKS_SERVER,
        (false, true, true) => 0,
    }
}
