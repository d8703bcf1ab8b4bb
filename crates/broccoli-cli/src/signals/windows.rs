//! What Windows tells a process that runs in a console.

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

/// Ctrl-C and Ctrl-Break.
pub(super) struct Interrupts {
    interrupt: CtrlC,
    terminate: CtrlBreak,
}

impl Interrupts {
    /// From now on, they do not end the process.
    pub(super) fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts { interrupt: ctrl_c()?, terminate: ctrl_break()? })
    }

    /// None if there will be no more.
    pub(super) async fn next(&mut self) -> Option<()> {
        tokio::select! {
            arrived = self.interrupt.recv() => arrived,
            arrived = self.terminate.recv() => arrived,
        }
    }
}

/// The console is closed, or the machine shuts down.
pub(super) struct Ends {
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Ends {
    /// From now on, this process has some seconds to end.
    pub(super) fn listen() -> io::Result<Ends> {
        Ok(Ends { close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
