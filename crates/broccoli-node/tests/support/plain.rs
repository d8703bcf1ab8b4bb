//! A TCP relay behind which a server retains nothing: it clears the retain flag of each PUBLISH and of each Will.
//!
//! A server behind it behaves like RabbitMQ, which sends no retained packets to a subscription with wildcards. The
//! tests of the node and of the command both use this file.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The first byte of a PUBLISH without its flags, and of a CONNECT.
const PUBLISH: u8 = 0x30;
const CONNECT: u8 = 0x10;
/// The flag in the first byte of a PUBLISH.
const RETAIN: u8 = 0x01;
/// Position of the flags in a CONNECT, after its length; and the flag of a retained Will.
const CONNECT_FLAGS_AT: usize = 7;
const WILL_RETAIN: u8 = 0x20;

/// A relay to a server. It and its connections end when it is dropped.
pub(crate) struct Plain {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Plain {
    /// Listens on an address, and relays to `server`.
    pub(crate) async fn start(listen: SocketAddr, server: SocketAddr) -> Plain {
        let listener = TcpListener::bind(listen).await.unwrap();
        let addr = listener.local_addr().unwrap();
        Plain { addr, task: tokio::spawn(accept(listener, server)) }
    }

    /// The address on which it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it and its connections. The port is free afterwards.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    relays.spawn(relay(near, server));
                }
            }
            Some(_) = relays.join_next() => {}
        }
    }
}

async fn relay(near: TcpStream, server: SocketAddr) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (near.into_split(), far.into_split());
    let there = async {
        let (mut stream, mut buf) = (Stream::default(), vec![0; 64 * 1024]);
        while let Ok(len @ 1..) = near_read.read(&mut buf).await {
            stream.strip(&mut buf[..len]);
            if far_write.write_all(&buf[..len]).await.is_err() {
                break;
            }
        }
        // The server still has to send that the client has left.
        let _ = far_write.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut far_read, &mut near_write).await;
    };
    // The server ends last; then both directions have ended.
    tokio::select! {
        () = back => {}
        () = async { there.await; std::future::pending::<()>().await } => {}
    }
}

/// The position of the relay in the packets of a client.
#[derive(Default)]
struct Stream {
    is_connect: bool,
    /// After the first byte: the bits of the length that were read.
    shift: Option<u32>,
    /// Bytes of the body that are left, and that have passed.
    left: usize,
    passed: usize,
}

impl Stream {
    /// Clears the flags in these bytes.
    fn strip(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if let Some(shift) = self.shift {
                let byte = bytes[at];
                self.left |= usize::from(byte & 0x7f) << shift;
                self.shift = (byte & 0x80 != 0).then_some(shift + 7);
                at += 1;
            } else if self.left > 0 {
                let step = self.left.min(bytes.len() - at);
                let flags = CONNECT_FLAGS_AT.checked_sub(self.passed).filter(|flags| self.is_connect && *flags < step);
                if let Some(flags) = flags {
                    bytes[at + flags] &= !WILL_RETAIN;
                }
                (self.left, self.passed) = (self.left - step, self.passed + step);
                at += step;
            } else {
                self.is_connect = bytes[at] == CONNECT;
                if bytes[at] & 0xf0 == PUBLISH {
                    bytes[at] &= !RETAIN;
                }
                (self.shift, self.passed) = (Some(0), 0);
                at += 1;
            }
        }
    }
}
