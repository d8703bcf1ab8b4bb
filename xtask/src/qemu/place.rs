//! The cluster that guests join: its cluster file, its server as a guest reaches it, and the settings of a guest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// A label of all guests.
pub(crate) const LABEL: &str = "qemu";
/// The address with which a guest reaches 127.0.0.1 of this machine.
const LOOPBACK: &str = "10.0.2.2";

/// The cluster that guests join, and where.
pub(crate) struct Place {
    cluster: String,
    key: String,
    deploy_public: String,
    /// Its host and port, as a guest reaches them.
    server: String,
    credentials: Option<(String, String)>,
}

impl Place {
    /// From a cluster file and the URL of a server. Without a URL it takes the one in the file, or this machine.
    ///
    /// # Errors
    /// The file cannot be read or is another, or the URL is none.
    pub(crate) fn new(file: &Path, url: Option<&str>) -> Result<Place> {
        let text = fs::read_to_string(file).map_err(|error| {
            format!(
                "{}: {error}; make a cluster with `broccoli up`, or name its file in BROCCOLI_CLUSTER",
                file.display()
            )
        })?;
        let field = |name| field(&text, name).map(str::to_owned);
        let needed = |name| field(name).ok_or_else(|| format!("{} is not a cluster file: no {name:?}", file.display()));
        let in_file = field("server");
        let url = url.or(in_file.as_deref()).unwrap_or("mqtt://127.0.0.1");
        let (server, credentials) =
            server(url).ok_or_else(|| format!("{url:?} is not mqtt://user:password@host:port"))?;
        Ok(Place {
            cluster: needed("cluster")?,
            key: needed("key")?,
            deploy_public: needed("deploy_public")?,
            server,
            credentials,
        })
    }

    pub(super) fn of_environment() -> Result<Place> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
        let default = || folder.map(|folder| folder.join("broccoli/cluster.json"));
        let file = variable("BROCCOLI_CLUSTER").map(PathBuf::from).or_else(default);
        let file = file.ok_or("there is no home directory: name the cluster file in BROCCOLI_CLUSTER")?;
        let of_up = || left_by_up(&fs::read_to_string(&file).ok()?, &fs::read_to_string(beside(&file)).ok()?);
        Place::new(&file, variable("BROCCOLI_SERVER").or_else(of_up).as_deref())
    }

    /// The settings that a guest reads at its start: see `settings.rs` of broccoli-embassy.
    pub(super) fn settings(&self, name: &str, more: &str) -> String {
        let Place { cluster, key, deploy_public, server, credentials } = self;
        let credentials = credentials.as_ref();
        let credentials = credentials.map(|(user, password)| format!("user={user}\npassword={password}\n"));
        format!(
            "broccoli settings 1\nname={name}\nserver={server}\ncluster={cluster}\nkey={key}\n\
             deploy_public={deploy_public}\nlabel={LABEL}\n{}{more}",
            credentials.unwrap_or_default()
        )
    }
}

/// Where `broccoli up` leaves its address: see `connect.rs` of broccoli-cli.
fn beside(cluster_file: &Path) -> PathBuf {
    let mut name = cluster_file.as_os_str().to_owned();
    name.push(".up");
    name.into()
}

/// The server of this cluster's `broccoli up`, if it runs here.
fn left_by_up(cluster: &str, left: &str) -> Option<String> {
    let runs = Path::new("/proc").join(field(left, "pid")?).exists();
    let is_ours = field(left, "cluster")? == field(cluster, "cluster")?;
    field(left, "server").filter(|_| runs && is_ours).map(str::to_owned)
}

/// A text field of the flat JSON object that a cluster file is.
fn field<'t>(json: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
}

/// Host and port of an MQTT URL as a guest reaches them, and user and password.
fn server(url: &str) -> Option<(String, Option<(String, String)>)> {
    let rest = url.strip_prefix("mqtt://")?.trim_end_matches('/');
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials.split_once(':')?), address),
        None => (None, rest),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (address, 1883),
    };
    let host = if ["localhost", "127.0.0.1", "[::1]"].contains(&host) { LOOPBACK } else { host };
    let decoded = match credentials {
        Some((user, password)) => Some((percent_decoded(user)?, percent_decoded(password)?)),
        None => None,
    };
    Some((format!("{host}:{port}"), decoded))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_as_guests_reach_them() {
        let plain = |url| server(url).map(|(server, _)| server);
        assert_eq!(plain("mqtt://127.0.0.1:1884").as_deref(), Some("10.0.2.2:1884"));
        assert_eq!(plain("mqtt://localhost/").as_deref(), Some("10.0.2.2:1883"));
        assert_eq!(plain("mqtt://[::1]:7").as_deref(), Some("10.0.2.2:7"));
        assert_eq!(plain("mqtt://pi.local:7").as_deref(), Some("pi.local:7"));
        assert_eq!(plain("http://pi.local"), None);
        assert_eq!(plain("mqtt://pi.local:x"), None);
        let credentials = Some(("a b".to_owned(), "p@:".to_owned()));
        assert_eq!(server("mqtt://a%20b:p%40%3a@h:1"), Some(("h:1".to_owned(), credentials)));
    }

    #[test]
    fn what_a_running_up_has_left_is_found() {
        let left = |cluster: &str, pid: u32| {
            format!("{{\"cluster\": \"{cluster}\", \"pid\": \"{pid}\", \"server\": \"mqtt://127.0.0.1:7\"}}")
        };
        let found = |cluster, pid| left_by_up("{\"cluster\": \"c1\"}", &left(cluster, pid));
        assert_eq!(found("c1", std::process::id()).as_deref(), Some("mqtt://127.0.0.1:7"));
        assert_eq!(found("c2", std::process::id()), None);
        // No process has this id.
        assert_eq!(found("c1", u32::MAX), None);
    }

    #[test]
    fn fields_of_a_cluster_file_are_found() {
        let json = "{\n  \"cluster\": \"c1\",\n  \"deploy_public\" : \"0f\"\n}\n";
        assert_eq!((field(json, "cluster"), field(json, "deploy_public")), (Some("c1"), Some("0f")));
        assert_eq!(field(json, "server"), None);
    }
}
