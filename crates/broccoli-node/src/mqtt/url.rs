//! The address of an MQTT server as text.
//!
//! Parses and writes `mqtt://[user:password@]host[:port]`. Never resolves a name. Shows the password only in
//! [`ServerUrl::to_url_with_password`].

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The default port of MQTT.
const DEFAULT_PORT: u16 = 1883;
/// Longer than any real address, in bytes. Limits the memory that a join token can use.
const URL_BYTES_MAX: usize = 1024;

/// The address of an MQTT server, and the account to use.
///
/// `Display` and `Debug` leave the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

/// Why a text is not the address of an MQTT server. `Display` shows no part of the text, because it may contain a
/// password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// The scheme is `mqtts://`, or another one with TLS.
    TlsUnsupported,
    /// A scheme other than `mqtt`.
    Scheme(String),
    /// Longer than 1,024 bytes.
    TooLong,
    /// There is no host, or it contains characters that are not allowed.
    Host(String),
    /// An IPv6 address without brackets.
    BracketsMissing,
    /// Not a number from 1 to 65535.
    Port(String),
    /// A user name without a password.
    PasswordMissing,
    /// A `%` in user or password without two hexadecimal digits after it, or bytes that are not UTF-8.
    PercentEncoding,
    /// Text after the port.
    Path(String),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsUnsupported => write!(f, "mqtts:// is not supported; packets are sealed anyway, use mqtt://"),
            // In a malformed address, any part may be the password.
            Self::Scheme(_) => write!(f, "unknown scheme, use mqtt://user:password@host:port"),
            Self::TooLong => write!(f, "server address is longer than {URL_BYTES_MAX} characters"),
            Self::Host(host) if host.is_empty() => {
                write!(f, "server address has no host, use mqtt://user:password@host:port")
            }
            Self::Host(_) => write!(f, "invalid host name or address, use mqtt://user:password@host:port"),
            Self::BracketsMissing => {
                write!(f, "put an IPv6 address in brackets: mqtt://[::1]:1883")
            }
            Self::Port(_) => {
                write!(f, "what follows the host is not a port (1 to 65535), use mqtt://user:password@host:port")
            }
            Self::PasswordMissing => {
                write!(f, "a user needs a password: mqtt://user:password@host:port")
            }
            Self::PercentEncoding => write!(f, "bad percent-encoding in user or password; write % as %25, @ as %40"),
            Self::Path(_) => write!(f, "a server address ends after the port, remove what follows"),
        }
    }
}

impl std::error::Error for UrlError {}

impl ServerUrl {
    /// A server without credentials. `host` is a name, an IPv4 address, or an IPv6 address without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, credentials: None }
    }

    /// The same server with a user and a password.
    #[must_use]
    pub fn with_credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// The host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host always means the local machine.
    pub fn is_loopback(&self) -> bool {
        let ip: Option<IpAddr> = self.host.parse().ok();
        self.host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback())
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and password, if the address names them.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        let (user, password) = self.credentials.as_ref()?;
        Some((user, password))
    }

    /// The whole address, including the password. For a join token or a cluster file, never for a log. Parsing it gives
    /// an equal value.
    pub fn to_url_with_password(&self) -> String {
        let host = BracketedHost(&self.host);
        match &self.credentials {
            None => format!("mqtt://{host}:{}", self.port),
            Some((user, password)) => {
                format!("mqtt://{}:{}@{host}:{}", percent_encode(user), percent_encode(password), self.port)
            }
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mqtt://{}:{}", BracketedHost(&self.host), self.port)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) => check_scheme(scheme).map(|()| rest)?,
            None => text,
        };
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if !matches!(path, "" | "/") {
            return Err(UrlError::Path(path.to_owned()));
        }
        let (host, port) = parse_host_port(authority)?;
        let url = Self { host, port, credentials: userinfo.map(parse_credentials).transpose()? };
        // Percent-encoding can make the written address longer than the original. It must still be within the limit.
        if url.to_url_with_password().len() > URL_BYTES_MAX { Err(UrlError::TooLong) } else { Ok(url) }
    }
}

fn check_scheme(scheme: &str) -> Result<(), UrlError> {
    match scheme.to_ascii_lowercase().as_str() {
        "mqtt" => Ok(()),
        "mqtts" | "ssl" | "tls" => Err(UrlError::TlsUnsupported),
        _ => Err(UrlError::Scheme(scheme.to_owned())),
    }
}

fn parse_host_port(authority: &str) -> Result<(String, u16), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let bad_host = || UrlError::Host(authority.to_owned());
        let (host, port) = rest.split_once(']').ok_or_else(bad_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(bad_host()),
        };
        return Ok((host.to_owned(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(UrlError::BracketsMissing),
        Some((host, port)) => (host, parse_port(port)?),
        None => (authority, DEFAULT_PORT),
    };
    let host_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(host_like) {
        return Err(UrlError::Host(host.to_owned()));
    }
    Ok((host.to_owned(), port))
}

fn parse_port(text: &str) -> Result<u16, UrlError> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(UrlError::Port(text.to_owned())),
    }
}

fn parse_credentials(userinfo: &str) -> Result<(String, String), UrlError> {
    let (user, password) = userinfo.split_once(':').ok_or(UrlError::PasswordMissing)?;
    Ok((percent_decode(user)?, percent_decode(password)?))
}

fn percent_decode(text: &str) -> Result<String, UrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high << 4 | low) as u8),
            _ => return Err(UrlError::PercentEncoding),
        }
    }
    String::from_utf8(decoded).map_err(|_| UrlError::PercentEncoding)
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A host as in an address: IPv6 in brackets.
struct BracketedHost<'a>(&'a str);

impl fmt::Display for BracketedHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn accepts_every_way_to_write_an_address() {
        let anonymous = |host: &str, port| Ok(ServerUrl::new(host, port));
        assert_eq!(parse("mqtt://pi.local"), anonymous("pi.local", 1883));
        assert_eq!(parse("mqtt://10.0.0.1:99/"), anonymous("10.0.0.1", 99));
        assert_eq!(parse("MQTT://host:1"), anonymous("host", 1));
        assert_eq!(parse(" host:1884\n"), anonymous("host", 1884));
        assert_eq!(parse("mqtt://[fe80::1]"), anonymous("fe80::1", 1883));
        assert_eq!(parse("[::1]:7"), anonymous("::1", 7));
        assert_eq!(
            parse("mqtt://me:p%40ss%3A%25@host"),
            Ok(ServerUrl::new("host", 1883).with_credentials("me", "p@ss:%"))
        );
    }

    #[test]
    fn loopback_is_known() {
        let loopback = |text: &str| parse(text).map(|url| url.is_loopback());
        for near in ["127.0.0.1", "127.9.9.9:7", "[::1]", "LocalHost:1"] {
            assert_eq!(loopback(near), Ok(true), "{near}");
        }
        for far in ["10.0.0.1", "pi.local", "[fe80::1]", "localhost.example"] {
            assert_eq!(loopback(far), Ok(false), "{far}");
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        assert_eq!(parse("mqtts://host"), Err(UrlError::TlsUnsupported));
        assert_eq!(parse("http://host"), Err(UrlError::Scheme("http".into())));
        assert_eq!(parse("mqtt://"), Err(UrlError::Host(String::new())));
        assert_eq!(parse("a b:1"), Err(UrlError::Host("a b".into())));
        assert_eq!(parse("fe80::1"), Err(UrlError::BracketsMissing));
        assert_eq!(parse("[nope]:1"), Err(UrlError::Host("[nope]:1".into())));
        assert_eq!(parse("host:0"), Err(UrlError::Port("0".into())));
        assert_eq!(parse("host:65536"), Err(UrlError::Port("65536".into())));
        assert_eq!(parse("me@host"), Err(UrlError::PasswordMissing));
        assert_eq!(parse("me:%4@host"), Err(UrlError::PercentEncoding));
        assert_eq!(parse("me:%ff@host"), Err(UrlError::PercentEncoding));
        assert_eq!(parse("host:1/x"), Err(UrlError::Path("/x".into())));
        assert_eq!(parse(&"h".repeat(1025)), Err(UrlError::TooLong));
        assert_eq!(parse(&format!("me:{}@host", "!".repeat(400))), Err(UrlError::TooLong));
    }

    #[test]
    fn errors_show_nothing_of_what_was_written() {
        for text in [
            "mqtt://me:geheim",
            "mqtt://me:geheim:1883",
            "geheim://host",
            "mqtt:/me:geheim@host/",
            "mqtt://me:geheim@",
            "mqtt://me:geheim%@host",
            "mqtt://host/geheim",
            "mqtts://me:geheim@host",
            "me geheim",
        ] {
            if let Err(error) = parse(text) {
                assert!(!error.to_string().contains("geheim"), "{text}: {error}");
            } else {
                assert_eq!(text, "mqtt:/me:geheim@host/", "is taken");
            }
        }
    }

    #[test]
    fn shows_no_password_unless_asked() {
        let url = ServerUrl::new("::1", 1883).with_credentials("mé", "geheim/@:%");
        assert_eq!(url.to_string(), "mqtt://[::1]:1883");
        assert_eq!(format!("{url:?}"), "ServerUrl(mqtt://[::1]:1883)");
        assert_eq!(parse(&url.to_url_with_password()), Ok(url));
    }
}
