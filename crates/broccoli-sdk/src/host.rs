//! The calls to the node. On targets other than Wasm there are stand-ins with the same effect, for tests.

use broccoli_abi::{HostCall, SubmitAnswer};

use crate::board::BoardError;

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "broccoli")]
    unsafe extern "C" {
        pub(crate) fn panic(ptr: *const u8, len: usize, line: u32);
        pub(crate) fn log(ptr: *const u8, len: usize);
        pub(crate) safe fn now_ms() -> i64;
        pub(crate) safe fn random() -> u64;
        pub(crate) safe fn sleep_ms(ms: u32);
        pub(crate) safe fn progress(done: u32, total: u32);
        pub(crate) fn submit(ptr: *const u8, len: usize) -> i64;
        pub(crate) fn board(code: u32, a: u32, b: u32, room: *mut u8, room_len: usize) -> i64;
    }
}

/// Sends a line of text to whoever watches the task. A line has at most 4 KiB, and each run has a limit in all.
///
/// ```
/// broccoli_sdk::log("half done");
/// ```
pub fn log(text: &str) {
    #[cfg(target_arch = "wasm32")]
    // SAFETY: pointer and length are those of `text`; the host only reads.
    unsafe {
        imports::log(text.as_ptr(), text.len());
    }
    #[cfg(not(target_arch = "wasm32"))]
    std::eprintln!("{text}");
}

/// Milliseconds since 1970, or since the node started if it has no clock.
///
/// ```
/// let start = broccoli_sdk::now_ms();
/// assert!(broccoli_sdk::now_ms() >= start);
/// ```
#[must_use]
pub fn now_ms() -> i64 {
    #[cfg(target_arch = "wasm32")]
    return imports::now_ms();
    #[cfg(not(target_arch = "wasm32"))]
    {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// 64 random bits. Do not use them for secrets.
///
/// ```
/// let dice = broccoli_sdk::random() % 6 + 1;
/// assert!((1..=6).contains(&dice));
/// ```
#[must_use]
pub fn random() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return imports::random();
    #[cfg(not(target_arch = "wasm32"))]
    {
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish()
    }
}

/// Sleeps without using the CPU. The node runs other tasks meanwhile.
///
/// ```
/// broccoli_sdk::sleep_ms(1);
/// ```
pub fn sleep_ms(ms: u32) {
    #[cfg(target_arch = "wasm32")]
    imports::sleep_ms(ms);
    #[cfg(not(target_arch = "wasm32"))]
    std::thread::sleep(core::time::Duration::from_millis(ms.into()));
}

/// Reports progress, in the task's own units; `total` is 0 if it does not know. You can call it as
/// often as you like: the node forwards at most four reports a second, and none of a task that
/// takes less than a quarter of a second.
///
/// ```
/// for done in 0..=100 {
///     broccoli_sdk::progress(done, 100);
/// }
/// ```
pub fn progress(done: u32, total: u32) {
    #[cfg(target_arch = "wasm32")]
    imports::progress(done, total);
    #[cfg(not(target_arch = "wasm32"))]
    std::eprintln!("{done} of {total}");
}

/// Submits an encoded canvas.
pub(crate) fn submit(canvas: &[u8]) -> SubmitAnswer {
    #[cfg(target_arch = "wasm32")]
    // SAFETY: pointer and length are those of `canvas`; the host only reads.
    return SubmitAnswer::from_code(unsafe { imports::submit(canvas.as_ptr(), canvas.len()) });
    #[cfg(not(target_arch = "wasm32"))]
    {
        std::eprintln!("submits a canvas of {} bytes", canvas.len());
        SubmitAnswer::Accepted
    }
}

/// Sends a request to the board.
#[cfg(target_arch = "wasm32")]
pub(crate) fn board(call: HostCall) -> Result<i32, BoardError> {
    use alloc::borrow::ToOwned;
    use broccoli_abi::{HOST_TEXT_LEN_MAX, HostAnswer};

    let ([code, a, b], mut room) = (call.to_raw(), [0; HOST_TEXT_LEN_MAX]);
    // SAFETY: pointer and length are those of `room`, where the host writes before this returns.
    let answer = unsafe { imports::board(code, a, b, room.as_mut_ptr(), room.len()) };
    match HostAnswer::unpack(answer) {
        HostAnswer::Value(value) => Ok(value),
        HostAnswer::Refused { text_len } => {
            let text = room.get(..text_len as usize).and_then(|text| core::str::from_utf8(text).ok());
            Err(BoardError(text.unwrap_or("the board has refused").to_owned().into()))
        }
    }
}

/// Returns an error: there is no board.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn board(_: HostCall) -> Result<i32, BoardError> {
    Err(BoardError("there is no board outside of a node".into()))
}

/// Ends the task with a text, without formatting.
#[cfg(target_arch = "wasm32")]
#[cold]
pub(crate) fn die(text: &str, line: u32) -> ! {
    // SAFETY: pointer and length are those of `text`; the host only reads.
    unsafe {
        imports::panic(text.as_ptr(), text.len(), line);
    }
    core::arch::wasm32::unreachable()
}

/// Ends the task with a text.
#[cfg(not(target_arch = "wasm32"))]
#[cold]
pub(crate) fn die(text: &str, _line: u32) -> ! {
    panic!("{text}")
}
