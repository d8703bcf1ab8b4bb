//! The signals that end a command or a node well.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Signals of this process from here on. Those that come while nobody waits are kept.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// As when a terminal is closed.
    hangup: Option<Signal>,
}

impl Signals {
    /// Ctrl-C, SIGTERM and SIGHUP: whoever closes the terminal wants no other end.
    ///
    /// # Errors
    /// If the system does not let this process wait for signals.
    pub(crate) fn of_node() -> Result<Signals, Failure> {
        Ok(Signals { hangup: Some(listen(SignalKind::hangup())?), ..Signals::of_command()? })
    }

    /// Ctrl-C, and SIGTERM as `timeout` sends it. SIGHUP is left as it is, since `nohup` has it ignored.
    ///
    /// # Errors
    /// As [`Signals::of_node`].
    pub(crate) fn of_command() -> Result<Signals, Failure> {
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, hangup: None })
    }

    /// Until the next one.
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
