//! The MQTT server in this process. It has one account, which belongs to the cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use broccoli_node::Cluster;
use broccoli_node::Limits;
use broccoli_node::mqtt::{EmbeddedServer, ServerConfig, ServerError};

use crate::advice::Advised;
use crate::connect::DEFAULT_PORT;
use crate::exit::Failure;
use crate::output;

/// Default for the number of nodes and commands at the same time.
pub(crate) const CLIENTS_MAX: usize = 10_000;
/// Files that this process needs besides the connections of clients: for its node, the journal, modules, and
/// connections that are not accepted yet.
const FILES_BESIDE: u64 = 256;
/// The example in errors about an address.
const EXAMPLE: &str = "write it as 0.0.0.0:1883 (every network) or localhost:1884 (this machine only)";

/// Starts the server for this many clients. When this returns, clients can connect. Later problems are reported to the
/// operator.
///
/// # Errors
/// If the server cannot listen on the address.
pub(crate) async fn start(cluster: &Cluster, listen: SocketAddr, clients: usize) -> Result<EmbeddedServer, Failure> {
    let (user, password) = cluster.mqtt_credentials();
    let packet_bytes_max = Limits::host().packet_bytes_max as usize;
    let clients_max = seats(clients);
    let config = ServerConfig { listen, user, password, packet_bytes_max, clients_max };
    let mut server = EmbeddedServer::start(config).await.map_err(|error| match error {
        ServerError::Thread(_) => Failure::failed(error),
        error => Failure::usage(Advised(&error)),
    })?;
    let mut notices = server.notices();
    tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            output::note(Advised(&notice));
        }
    });
    Ok(server)
}

/// How many clients the server can accept with the file descriptors of this process. Reports it if they are fewer.
fn seats(wanted: usize) -> usize {
    let files = raise_files_max();
    let possible = usize::try_from(files.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        output::note(format_args!(
            "the MQTT server accepts {possible} nodes and commands, not {wanted}: a process may open only {files} \
             files here; raise this limit with `ulimit -Hn`, or with LimitNOFILE= in a systemd unit"
        ));
    }
    wanted.min(possible)
}

/// Raises the number of files that this process may open to its maximum, and returns the number.
#[cfg(unix)]
fn raise_files_max() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard),
        Ok((soft, _)) => soft,
        // Every system allows this many.
        Err(_) => 1_024,
    }
}

/// Windows does not limit the number of sockets of a process.
#[cfg(not(unix))]
fn raise_files_max() -> u64 {
    u64::MAX
}

/// Parses the address to listen on: `0.0.0.0:1883`, `[::]:1883`, `localhost:1884`, `pi.local`, `1884`.
///
/// # Errors
/// If the text is not an address, or the host is unknown.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok((ip, DEFAULT_PORT).into());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if let (true, Ok(port)) = (host == text, text.parse()) {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let port = if port.is_empty() { Ok(DEFAULT_PORT) } else { port.parse() };
    let host_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match port {
        // The system would resolve a number as an address.
        Ok(port) if host.chars().all(host_like) && host.contains(|c: char| !c.is_ascii_digit()) => resolve(host, port),
        _ => Err(format!("not an address to listen on: {EXAMPLE}")),
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    // Most clients use IPv4 only.
    let first = found.iter().find(|addr| addr.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| format!("unknown host {host}: {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_are_written_in_many_ways() {
        let listen = |text: &str| parse_listen(text).map(|addr| addr.to_string());
        for (text, addr) in [
            ("0.0.0.0:1883", "0.0.0.0:1883"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:1884", "[::1]:1884"),
            ("::1", "[::1]:1883"),
            ("[::]", "[::]:1883"),
            ("192.0.2.1", "192.0.2.1:1883"),
            ("localhost:1884", "127.0.0.1:1884"),
            ("localhost", "127.0.0.1:1883"),
            ("1884", "0.0.0.0:1884"),
        ] {
            assert_eq!(listen(text).as_deref(), Ok(addr), "{text}");
        }
        for text in ["", ":", ":1883", "99999", "host:port", "localhost:70000", "70000x:1", "mqtt://host", "a b"] {
            let error = listen(text).unwrap_err();
            assert!(error.ends_with(EXAMPLE), "{text}: {error}");
        }
    }
}
