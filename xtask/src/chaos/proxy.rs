//! A TCP relay before a server. It acts as a cable that can be pulled, silenced and slowed down.
//!
//! It owns its connections and the threads that serve them, which end with the value. Like TCP, it loses no byte of a
//! live connection. It never looks at the data.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// How many bytes are carried at once. They are few, so that a slow link is evenly slow.
const CHUNK_BYTES: usize = 2048;
/// How many chunks are in flight in one direction. A sender of more must wait.
const CHUNKS_MAX: usize = 32;

/// What the relay does with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It passes it on.
    Open,
    /// It keeps the data, and also the ends of connections. Both sides see a silent peer.
    Silent,
    /// It has closed every connection, and closes new ones.
    Cut,
}

/// The delay and the rate of each direction of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    /// From one end to the other.
    pub(crate) latency: Duration,
    /// The rate. `None`: as fast as this machine.
    pub(crate) bytes_per_s: Option<u32>,
}

/// As fast as loopback is.
pub(crate) const FAST: Speed = Speed { latency: Duration::ZERO, bytes_per_s: None };

/// A relay to a server, on its own port.
pub(crate) struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    speed: Speed,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    over: bool,
    /// Both ends of all connections that were made since the last cut.
    streams: Vec<TcpStream>,
}

/// Bytes, or the end of the stream (none), and when they came.
type Chunk = (Instant, Vec<u8>);

impl Proxy {
    /// A relay that passes everything on.
    ///
    /// # Errors
    /// The system gives no port.
    pub(crate) fn start(server: SocketAddr, speed: Speed) -> Result<Proxy> {
        let no_port = |error| format!("cannot listen for a relay: {error}");
        let listener = TcpListener::bind((server.ip(), 0)).map_err(no_port)?;
        let addr = listener.local_addr().map_err(no_port)?;
        let state = Mutex::new(State { mode: Mode::Open, over: false, streams: Vec::new() });
        let shared = Arc::new(Shared { server, speed, state, changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || listener.incoming().flatten().take_while(|near| accepting.accept(near)).count());
        Ok(Proxy { addr, shared })
    }

    /// Where nodes connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends all connections and refuses new ones, until [`Proxy::heal`].
    pub(crate) fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Passes nothing on and keeps connections open, until [`Proxy::heal`].
    pub(crate) fn silence(&self) {
        self.set(Mode::Silent);
    }

    /// Passes everything on again.
    pub(crate) fn heal(&self) {
        self.set(Mode::Open);
    }

    fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        state.mode = mode;
        if mode == Mode::Cut {
            state.close_all();
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.cut();
        // Wakes the thread that accepts, so that it sees the end.
        let _ = TcpStream::connect(self.addr);
    }
}

impl State {
    fn close_all(&mut self) {
        // A stream that has ended is closed already.
        for stream in self.streams.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the link is silent. Returns whether it is open then.
    fn is_open(&self) -> bool {
        let silent = |state: &mut State| state.mode == Mode::Silent;
        let state = self.changed.wait_while(self.lock(), silent).unwrap_or_else(PoisonError::into_inner);
        state.mode == Mode::Open
    }

    /// Serves a connection, unless the link is cut. Returns false when the relay has ended.
    fn accept(self: &Arc<Self>, near: &TcpStream) -> bool {
        if let Ok(near) = near.try_clone() {
            let shared = self.clone();
            // A silent link delays new connections, too.
            thread::spawn(move || shared.is_open().then(|| shared.connect(near)));
        }
        !self.lock().over
    }

    fn connect(self: &Arc<Self>, near: TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(self.server)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let mut state = self.lock();
        if state.mode == Mode::Cut {
            return Ok(());
        }
        state.streams.extend([near.try_clone()?, far.try_clone()?]);
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            let (send, chunks) = sync_channel(CHUNKS_MAX);
            let shared = self.clone();
            thread::spawn(move || read(from, &send));
            thread::spawn(move || shared.write(to, &chunks));
        }
        Ok(())
    }

    /// Writes the data when it is due, then the end of the stream.
    fn write(&self, mut to: TcpStream, chunks: &Receiver<Chunk>) {
        let mut free_at = Instant::now();
        while let Ok((came, bytes)) = chunks.recv() {
            let takes = self.speed.bytes_per_s.map_or(0.0, |rate| bytes.len() as f64 / f64::from(rate));
            free_at = free_at.max(came) + Duration::from_secs_f64(takes);
            thread::sleep((free_at + self.speed.latency).saturating_duration_since(Instant::now()));
            if !self.is_open() || bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other side may have closed it before.
        let _ = to.shutdown(Shutdown::Both);
    }
}

fn read(mut from: TcpStream, send: &SyncSender<Chunk>) {
    let mut buf = [0; CHUNK_BYTES];
    loop {
        // A broken connection is handled like a closed one.
        let len = from.read(&mut buf).unwrap_or(0);
        if send.send((Instant::now(), buf[..len].to_vec())).is_err() || len == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection through a relay, and its other end.
    fn connection(speed: Speed) -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Proxy::start(server.local_addr().expect("an address"), speed).expect("a relay");
        let near = TcpStream::connect(proxy.addr()).expect("the relay accepts");
        let (far, _) = server.accept().expect("the relay connects");
        (proxy, near, far)
    }

    fn carries(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
        from.write_all(text.as_bytes()).expect("it takes bytes");
        let mut got = vec![0; text.len()];
        to.read_exact(&mut got).expect("the bytes come");
        assert_eq!(got, text.as_bytes());
    }

    #[test]
    fn bytes_pass_and_a_cut_ends_both_sides() {
        let (proxy, mut near, mut far) = connection(FAST);
        carries(&mut near, &mut far, "there");
        carries(&mut far, &mut near, "and back");
        proxy.cut();
        assert_eq!((near.read(&mut [0]).unwrap_or(0), far.read(&mut [0]).unwrap_or(0)), (0, 0));
    }

    #[test]
    fn silence_keeps_bytes_until_it_heals() {
        let (proxy, mut near, mut far) = connection(FAST);
        proxy.silence();
        near.write_all(b"late").expect("it takes bytes");
        far.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
        assert!(far.read(&mut [0]).is_err(), "nothing comes");
        far.set_read_timeout(None).expect("no time limit");
        proxy.heal();
        let mut got = [0; 4];
        far.read_exact(&mut got).expect("the bytes come");
        assert_eq!(&got, b"late");
    }

    #[test]
    fn a_slow_link_takes_its_time() {
        let speed = Speed { latency: Duration::from_millis(30), bytes_per_s: Some(100_000) };
        let (_proxy, mut near, mut far) = connection(speed);
        let start = Instant::now();
        carries(&mut near, &mut far, &"x".repeat(10_000));
        assert!(start.elapsed() >= Duration::from_millis(130), "{:?}", start.elapsed());
    }
}
