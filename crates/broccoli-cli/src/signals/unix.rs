//! The signals of Unix.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and SIGTERM, which `timeout` and systemd send.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on, they do not end the process.
    pub(super) fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// None if there will be no more.
    pub(super) async fn next(&mut self) -> Option<()> {
        tokio::select! {
            arrived = self.interrupt.recv() => arrived,
            arrived = self.terminate.recv() => arrived,
        }
    }
}

/// SIGHUP, for example when the terminal is closed.
pub(super) struct Ends(Signal);

impl Ends {
    /// From now on, it does not end the process.
    pub(super) fn listen() -> io::Result<Ends> {
        signal(SignalKind::hangup()).map(Ends)
    }

    pub(super) async fn next(&mut self) {
        self.0.recv().await;
    }
}
