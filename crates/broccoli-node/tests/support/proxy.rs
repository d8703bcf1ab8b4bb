//! A TCP relay in front of a server. It can be cut and stalled.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use broccoli_node::mqtt::ServerUrl;

use super::{PASSWORD, TestServer, USER};

/// What the relay does with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It passes data on.
    Open,
    /// It keeps data. Both sides see a silent peer.
    Stalled,
    /// It closes every connection at once.
    Cut,
}

/// A relay to a server, on its own port.
pub(crate) struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A relay that passes everything on.
    pub(crate) async fn new(server: &TestServer) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Open);
        let task = tokio::spawn(accept(listener, server.addr(), seen));
        Proxy { addr, mode, task }
    }

    /// The address of the server as seen through the relay.
    pub(crate) fn url(&self) -> ServerUrl {
        ServerUrl::new(self.addr.ip().to_string(), self.addr.port()).with_credentials(USER, PASSWORD)
    }

    /// Ends all connections and refuses new ones, until [`Proxy::heal`].
    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Passes nothing on, until [`Proxy::heal`]. No side notices it.
    pub(crate) fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Passes everything on again.
    pub(crate) fn heal(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, mode: watch::Receiver<Mode>) {
    while let Ok((near, _)) = listener.accept().await {
        if *mode.borrow() != Mode::Cut {
            tokio::spawn(relay(near, server, mode.clone()));
        }
    }
}

async fn relay(near: TcpStream, server: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(server).await else { return };
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    // If one direction ends, both end.
    tokio::select! {
        () = pump(near_read, far_write, mode.clone()) => {}
        () = pump(far_read, near_write, mode.clone()) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buf = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buf).await {
        let open = mode.wait_for(|mode| *mode == Mode::Open).await.is_ok();
        if !open || to.write_all(&buf[..len]).await.is_err() {
            return;
        }
    }
}
