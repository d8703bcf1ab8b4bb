//! The signals that end a command, or shut a node down gracefully.

use std::sync::OnceLock;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::exit::Failure;

/// One permit for each Ctrl-C and SIGTERM that was not handled yet. They are counted for the whole process, so that none
/// is lost between two parts of a command.
static ARRIVED: Semaphore = Semaphore::const_new(0);
/// Whether signals are counted. Before that, they end the process.
static COUNTED: OnceLock<()> = OnceLock::new();

/// The signals of this process. Signals that arrive before a call of [`Signals::next`] are kept.
pub(crate) struct Signals {
    /// Arrives, for example, when a terminal is closed.
    hangup: Option<Signal>,
}

impl Signals {
    /// Ctrl-C, SIGTERM and SIGHUP. A closed terminal shuts a node down in the same way.
    ///
    /// # Errors
    /// If the system does not let this process wait for signals.
    pub(crate) fn of_node() -> Result<Signals, Failure> {
        Signals::of_command()?;
        Ok(Signals { hangup: Some(listen(SignalKind::hangup())?) })
    }

    /// Ctrl-C and SIGTERM, which `timeout` sends. SIGHUP is not changed, because `nohup` ignores it.
    ///
    /// # Errors
    /// As [`Signals::of_node`].
    pub(crate) fn of_command() -> Result<Signals, Failure> {
        if COUNTED.set(()).is_ok() {
            tokio::spawn(count(listen(SignalKind::interrupt())?));
            tokio::spawn(count(listen(SignalKind::terminate())?));
        }
        Ok(Signals { hangup: None })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            arrived = ARRIVED.acquire() => {
                if let Ok(arrived) = arrived {
                    arrived.forget();
                }
            }
            _ = hung_up => {}
        }
    }
}

async fn count(mut signals: Signal) {
    while signals.recv().await.is_some() {
        ARRIVED.add_permits(1);
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot wait for signals: {error}")))
}
