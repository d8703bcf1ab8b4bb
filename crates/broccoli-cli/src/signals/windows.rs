//! In place of `signals.rs` on Windows: what Windows tells a process that runs in a console.

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use crate::exit::Failure;

/// The signals of this process from now on. Signals that arrive before a call of [`Signals::next`] are kept.
pub(crate) struct Signals {
    interrupt: CtrlC,
    terminate: CtrlBreak,
    /// Arrive when the console is closed, and when the machine shuts down.
    end: Option<(CtrlClose, CtrlShutdown)>,
}

impl Signals {
    /// Ctrl-C and Ctrl-Break. A closed console and the end of the machine shut a node down in the same way.
    ///
    /// # Errors
    /// If the system does not let this process wait for signals.
    pub(crate) fn of_node() -> Result<Signals, Failure> {
        let end = (ctrl_close().map_err(failed)?, ctrl_shutdown().map_err(failed)?);
        Ok(Signals { end: Some(end), ..Signals::of_command()? })
    }

    /// Ctrl-C and Ctrl-Break.
    ///
    /// # Errors
    /// As [`Signals::of_node`].
    pub(crate) fn of_command() -> Result<Signals, Failure> {
        let (interrupt, terminate) = (ctrl_c().map_err(failed)?, ctrl_break().map_err(failed)?);
        Ok(Signals { interrupt, terminate, end: None })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        let Signals { interrupt, terminate, end } = self;
        let ended = async {
            let Some((close, shutdown)) = end else { return std::future::pending().await };
            tokio::select! {
                _ = close.recv() => {}
                _ = shutdown.recv() => {}
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = ended => {}
        }
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot wait for signals: {error}"))
}
