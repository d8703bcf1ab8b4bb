//! Handles panics of native functions: the task fails, and one line is written. Rust's own report would name neither
//! the task nor the job.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Once};

use broccoli_proto::JobId;
use broccoli_proto::message::Attempt;

use crate::logging;

/// A task with a native function.
#[derive(Clone, Debug)]
pub(crate) struct NativeTask {
    /// `module.function`.
    pub(crate) function: Arc<str>,
    /// `None` if the core no longer waits for it.
    pub(crate) attempt: Option<(JobId, Attempt)>,
}

thread_local! {
    /// The native task that this thread runs.
    static RUNNING: RefCell<Option<NativeTask>> = const { RefCell::new(None) };
}

/// Calls a native function. A panic writes one line: the log line of the failed task if these are logged, otherwise a
/// line on stderr.
pub(crate) fn call<T>(task: &NativeTask, function: impl FnOnce() -> T) -> T {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            RUNNING.set(None);
        }
    }
    RUNNING.set(Some(task.clone()));
    let _ended = Ended;
    function()
}

/// Installs the panic hook, once. Panics outside of native functions go to the hook that was installed before.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let other = panic::take_hook();
        panic::set_hook(Box::new(move |info| match RUNNING.with_borrow(Option::clone) {
            Some(task) => tell(&task, info),
            None => other(info),
        }));
    });
}

fn tell(task: &NativeTask, info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    if logging::tells_failures() {
        // The core reports the failure itself.
        tracing::debug!(target: "broccoli::task", function = %task.function, at, "panic");
        return;
    }
    let of = task.attempt.map_or_else(String::new, |(job, attempt)| {
        format!(" (job {job}, step {}, attempt {})", attempt.step, attempt.number)
    });
    let text = text(info.payload()).escape_debug();
    // If stderr is closed, the failure of the task has the text.
    let _ = writeln!(io::stderr(), "task {}{of} panicked at {at}: {text}", task.function);
}

/// The text of a panic.
pub(crate) fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
