//! The signals that end a command, or shut a node down gracefully.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// The signals of this process from now on. Signals that arrive before a call of [`Signals::next`] are kept.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Arrives, for example, when a terminal is closed.
    hangup: Option<Signal>,
}

impl Signals {
    /// Ctrl-C, SIGTERM and SIGHUP. A closed terminal shuts a node down in the same way.
    ///
    /// # Errors
    /// If the system does not let this process wait for signals.
    pub(crate) fn of_node() -> Result<Signals, Failure> {
        Ok(Signals { hangup: Some(listen(SignalKind::hangup())?), ..Signals::of_command()? })
    }

    /// Ctrl-C and SIGTERM, which `timeout` sends. SIGHUP is not changed, because `nohup` ignores it.
    ///
    /// # Errors
    /// As [`Signals::of_node`].
    pub(crate) fn of_command() -> Result<Signals, Failure> {
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, hangup: None })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let Signals { interrupt, terminate, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot wait for signals: {error}")))
}
