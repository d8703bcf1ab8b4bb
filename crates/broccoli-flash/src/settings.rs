//! The text that gives a chip the identity of its node. `settings.rs` of `broccoli-embassy` reads this text, and
//! explains what each line means.

use std::fmt;
use std::fmt::Write as _;

use broccoli_proto::NodeId;
use broccoli_proto::id::hex;
use broccoli_proto::led::Led;
use broccoli_proto::module::DeployPublic;
use broccoli_proto::options::{CHIP_LABELS_MAX, LABEL_BYTES_MAX, is_label};
use broccoli_proto::seal::ClusterKey;

/// The limits of 802.11.
const SSID_BYTES_MAX: usize = 32;
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

/// The identity of a node, its network and its cluster. It contains secrets, so it has no `Debug`.
pub struct Settings {
    /// Its name.
    pub name: NodeId,
    /// Name of the Wi-Fi network.
    pub ssid: String,
    /// Password of the Wi-Fi network; empty if it is open.
    pub wifi_password: String,
    /// Host and port of the MQTT server.
    pub server: (String, u16),
    /// User and password for the server, if they are not those of a member of the cluster.
    pub credentials: Option<(String, String)>,
    /// The cluster's id.
    pub cluster: NodeId,
    /// Its key.
    pub key: ClusterKey,
    /// Whose signature a module needs.
    pub deploy_public: DeployPublic,
    /// Labels and capabilities.
    pub labels: Vec<String>,
    /// Whether tasks may reboot it.
    pub reboots: bool,
    /// The LED, if it is not the one of the chip's usual board.
    pub led: Option<Led>,
}

/// Why a chip could not use these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// The name of the network is empty or too long, with its length in bytes.
    Ssid(usize),
    /// The password of the network is too short or too long, with its length in bytes.
    WifiPassword(usize),
    /// The host of the server is an IPv6 address.
    Ipv6,
    /// The host of the server is this machine itself.
    Loopback(String),
    /// The host of the server is a name of mDNS.
    Mdns(String),
    /// There are too many labels.
    Labels,
    /// A label is not valid.
    Label(String),
    /// A value has a line end or another control character.
    Control(&'static str),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::Ssid(bytes) => {
                write!(f, "the name of a Wi-Fi network has 1 to {SSID_BYTES_MAX} bytes, this one has {bytes}")
            }
            SettingsError::WifiPassword(bytes) => {
                let (least, most) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
                write!(f, "the password of a Wi-Fi network has {least} to {most} bytes, or none, this one has {bytes}")
            }
            SettingsError::Ipv6 => write!(f, "chips speak IPv4 only: name the server by an IPv4 address, or by a name"),
            SettingsError::Loopback(host) => {
                write!(f, "a chip cannot reach {host}: name the server as it is called in the network")
            }
            SettingsError::Mdns(host) => {
                write!(
                    f,
                    "a chip cannot look up {host} (mDNS): name the server by its IPv4 address, or by a name in DNS"
                )
            }
            SettingsError::Labels => write!(f, "a chip has at most {CHIP_LABELS_MAX} labels"),
            SettingsError::Label(label) => {
                write!(
                    f,
                    "bad label {label:?}: such as led or room=kitchen, without spaces, with something on both sides of =, and \
                     at most {LABEL_BYTES_MAX} bytes"
                )
            }
            SettingsError::Control(what) => write!(f, "{what} has a line end or another control character"),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// The text that a chip reads.
    ///
    /// # Errors
    /// If a chip could not use these settings.
    pub fn text(&self) -> Result<String, SettingsError> {
        self.check()?;
        let Settings { name, ssid, cluster, .. } = self;
        let (host, port) = &self.server;
        let (key, deploy_public) = (hex(&self.key.to_bytes()), hex(&self.deploy_public.0));
        let mut text = format!(
            "broccoli settings 1\nname={name}\nssid={ssid}\nserver={host}:{port}\ncluster={cluster}\nkey={key}\n\
             deploy_public={deploy_public}\n"
        );
        let mut line = |name: &str, value: &str| writeln!(text, "{name}={value}").expect("a String takes all");
        if !self.wifi_password.is_empty() {
            line("wifi_password", &self.wifi_password);
        }
        if let Some((user, password)) = &self.credentials {
            line("user", user);
            line("password", password);
        }
        for label in &self.labels {
            line("label", label);
        }
        if self.reboots {
            line("reboot", "yes");
        }
        if let Some(led) = self.led {
            line("led", &led.to_string());
        }
        Ok(text)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let (host, _) = &self.server;
        let (user, password) = self.credentials.as_ref().map_or(("", ""), |(user, password)| (user, password));
        let texts = [
            ("the name of the Wi-Fi network", self.ssid.as_str()),
            ("the password of the Wi-Fi network", &self.wifi_password),
            ("the server", host),
            ("the server's user", user),
            ("the server's password", password),
        ];
        let labels = self.labels.iter().map(|label| ("a label", label.as_str()));
        if let Some((what, _)) = texts.into_iter().chain(labels).find(|(_, text)| text.contains(char::is_control)) {
            return Err(SettingsError::Control(what));
        }
        if !(1..=SSID_BYTES_MAX).contains(&self.ssid.len()) {
            return Err(SettingsError::Ssid(self.ssid.len()));
        }
        if !self.wifi_password.is_empty() && !PASSWORD_BYTES.contains(&self.wifi_password.len()) {
            return Err(SettingsError::WifiPassword(self.wifi_password.len()));
        }
        if host.contains(':') {
            return Err(SettingsError::Ipv6);
        }
        if host == "localhost" || host.starts_with("127.") {
            return Err(SettingsError::Loopback(host.clone()));
        }
        if host.trim_end_matches('.').to_ascii_lowercase().ends_with(".local") {
            return Err(SettingsError::Mdns(host.clone()));
        }
        if self.labels.len() > CHIP_LABELS_MAX {
            return Err(SettingsError::Labels);
        }
        let is_bad = |label: &&String| !is_label(label);
        self.labels.iter().find(is_bad).map_or(Ok(()), |label| Err(SettingsError::Label(label.clone())))
    }
}
