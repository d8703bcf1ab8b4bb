//! The signals that end a command, or shut a node down gracefully.

#[cfg_attr(windows, path = "signals/windows.rs")]
#[cfg_attr(not(windows), path = "signals/unix.rs")]
mod system;

use std::sync::OnceLock;

use tokio::sync::Semaphore;

use crate::exit::Failure;
use crate::signals::system::{Ends, Interrupts};

/// One permit for each interrupt that was not handled yet. They are counted for the whole process, so that none is lost
/// between two parts of a command.
static ARRIVED: Semaphore = Semaphore::const_new(0);
/// Whether interrupts are counted. Before that, they end the process.
static COUNTED: OnceLock<()> = OnceLock::new();

/// The signals of this process. Signals that arrive before a call of [`Signals::next`] are kept.
pub(crate) struct Signals {
    ends: Option<Ends>,
}

impl Signals {
    /// Interrupts, and what tells that the terminal or the machine ends. That shuts a node down in the same way.
    ///
    /// # Errors
    /// If the system does not let this process wait for signals.
    pub(crate) fn of_node() -> Result<Signals, Failure> {
        Signals::of_command()?;
        Ok(Signals { ends: Some(Ends::listen().map_err(failed)?) })
    }

    /// Interrupts only: `nohup` keeps a command running when its terminal is closed.
    ///
    /// # Errors
    /// As [`Signals::of_node`].
    pub(crate) fn of_command() -> Result<Signals, Failure> {
        if COUNTED.set(()).is_ok() {
            let mut interrupts = Interrupts::listen().map_err(failed)?;
            tokio::spawn(async move {
                while interrupts.next().await.is_some() {
                    ARRIVED.add_permits(1);
                }
            });
        }
        Ok(Signals { ends: None })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let ended = async {
            match &mut self.ends {
                Some(ends) => ends.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            arrived = ARRIVED.acquire() => {
                if let Ok(arrived) = arrived {
                    arrived.forget();
                }
            }
            () = ended => {}
        }
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot wait for signals: {error}"))
}
