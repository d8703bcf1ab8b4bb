//! The settings of a node. They are written to the flash beside the firmware, and never compiled into it.
//!
//! ```text
//! broccoli settings 1
//! name=guest-1
//! server=192.168.1.10:1883
//! cluster=c1a2b3c4
//! key=64 hex digits
//! deploy_public=64 hex digits
//! label=room=kitchen          may be repeated
//! user=…, password=…          if the MQTT server wants other credentials than those of a member of the cluster
//! resident=yes                if it accepts jobs of other nodes
//! reboot=yes                  if tasks may reboot it
//! ssid=…, wifi_password=…     the network of a chip with a radio; no password if it is open
//! led=15                      the pin of the LED, if it is not the usual one of the chip; with `,low` if it is on while
//!                             the pin is low, with `,colour` if it is an addressable RGB LED
//! ```
//!
//! They are in a partition or a region of memory. The text ends before the first zero or erased (0xff) byte.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use broccoli_proto::NodeId;
use broccoli_proto::id::unhex;
use broccoli_proto::led::Led;
use broccoli_proto::module::DeployPublic;
use broccoli_proto::options::{CHIP_LABELS_MAX, LABEL_BYTES_MAX};
use broccoli_proto::seal::ClusterKey;

const FIRST_LINE: &str = "broccoli settings 1";

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, unique in the cluster.
    pub name: NodeId,
    /// Address or host name of the MQTT server.
    pub host: String,
    /// Port of the MQTT server.
    pub port: u16,
    /// The id of the cluster.
    pub cluster: NodeId,
    /// The key of the cluster.
    pub key: ClusterKey,
    /// The key that verifies the signatures of modules.
    pub deploy_public: DeployPublic,
    /// Labels and capabilities.
    pub features: Vec<String>,
    /// User and password for the MQTT server.
    pub credentials: (String, String),
    /// Whether it accepts jobs of other nodes. No by default: its queue is small.
    pub resident: bool,
    /// Whether tasks may reboot it. No by default.
    pub reboots: bool,
    /// The Wi-Fi network, for a chip with a radio.
    pub wifi: Option<Wifi>,
    /// The LED, if it is not the usual one of the board.
    pub led: Option<Led>,
}

/// A Wi-Fi network.
#[derive(Clone)]
pub struct Wifi {
    /// Its name.
    pub ssid: String,
    /// Its password. Empty if the network is open.
    pub password: String,
}

impl fmt::Debug for Wifi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wifi").field("ssid", &self.ssid).finish_non_exhaustive()
    }
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// There are no settings: the first line is not the expected one.
    Missing,
    /// This setting is missing or invalid.
    Bad(&'static str),
    /// There is an unknown line.
    Unknown,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::Missing => write!(f, "no settings: the first line is not {FIRST_LINE:?}"),
            SettingsError::Bad(name) => write!(f, "settings: {name} is missing or invalid"),
            SettingsError::Unknown => write!(f, "settings: unknown line"),
        }
    }
}

impl core::error::Error for SettingsError {}

impl Settings {
    /// Reads the settings in a region of memory.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn parse(region: &[u8]) -> Result<Settings, SettingsError> {
        let end = region.iter().position(|byte| matches!(byte, 0 | 0xff)).unwrap_or(region.len());
        let text = core::str::from_utf8(&region[..end]).map_err(|_| SettingsError::Missing)?;
        let lines = text.strip_prefix(FIRST_LINE).ok_or(SettingsError::Missing)?;
        let mut read = Lines::default();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            read.line(line)?;
        }
        read.settings()
    }
}

#[derive(Default)]
struct Lines<'t> {
    name: Option<&'t str>,
    server: Option<&'t str>,
    cluster: Option<&'t str>,
    key: Option<&'t str>,
    deploy_public: Option<&'t str>,
    user: Option<&'t str>,
    password: Option<&'t str>,
    resident: Option<&'t str>,
    reboot: Option<&'t str>,
    ssid: Option<&'t str>,
    wifi_password: Option<&'t str>,
    led: Option<&'t str>,
    features: Vec<String>,
}

impl<'t> Lines<'t> {
    fn line(&mut self, line: &'t str) -> Result<(), SettingsError> {
        let (name, value) = line.split_once('=').ok_or(SettingsError::Unknown)?;
        let place = match name {
            "name" => &mut self.name,
            "server" => &mut self.server,
            "cluster" => &mut self.cluster,
            "key" => &mut self.key,
            "deploy_public" => &mut self.deploy_public,
            "user" => &mut self.user,
            "password" => &mut self.password,
            "resident" => &mut self.resident,
            "reboot" => &mut self.reboot,
            "ssid" => &mut self.ssid,
            "wifi_password" => &mut self.wifi_password,
            "led" => &mut self.led,
            "label" => return self.label(value),
            _ => return Err(SettingsError::Unknown),
        };
        *place = Some(value);
        Ok(())
    }

    fn label(&mut self, label: &str) -> Result<(), SettingsError> {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || self.features.len() == CHIP_LABELS_MAX {
            return Err(SettingsError::Bad("label"));
        }
        self.features.push(label.into());
        Ok(())
    }

    fn settings(self) -> Result<Settings, SettingsError> {
        use SettingsError::Bad;
        let cluster: NodeId = self.cluster.and_then(|id| id.parse().ok()).ok_or(Bad("cluster"))?;
        let key = ClusterKey::new(self.key.and_then(unhex).ok_or(Bad("key"))?);
        let (host, port) = self.server.and_then(|server| server.rsplit_once(':')).ok_or(Bad("server"))?;
        let credentials = match (self.user, self.password) {
            (Some(user), Some(password)) => (user.into(), password.into()),
            (None, None) => (cluster.as_str().into(), key.mqtt_password()),
            _ => return Err(Bad("user or password")),
        };
        let wifi = match (self.ssid, self.wifi_password) {
            (Some(ssid), password) => Some(Wifi { ssid: ssid.into(), password: password.unwrap_or_default().into() }),
            (None, None) => None,
            (None, Some(_)) => return Err(Bad("ssid")),
        };
        Ok(Settings {
            name: self.name.and_then(|name| name.parse().ok()).ok_or(Bad("name"))?,
            host: host.into(),
            port: port.parse().map_err(|_| Bad("server"))?,
            cluster,
            key,
            deploy_public: DeployPublic(self.deploy_public.and_then(unhex).ok_or(Bad("deploy_public"))?),
            features: self.features,
            credentials,
            resident: yes_or_no(self.resident).ok_or(Bad("resident"))?,
            reboots: yes_or_no(self.reboot).ok_or(Bad("reboot"))?,
            wifi,
            led: self.led.map(str::parse).transpose().map_err(|_| Bad("led"))?,
        })
    }
}

fn yes_or_no(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("no") => Some(false),
        Some("yes") => Some(true),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use broccoli_proto::led::LedKind;

    fn text(lines: &str) -> String {
        let hex = "0f".repeat(32);
        format!("{FIRST_LINE}\nname=g1\nserver=10.0.2.2:1883\ncluster=c1\nkey={hex}\ndeploy_public={hex}\n{lines}")
    }

    #[test]
    fn settings_end_where_the_region_is_empty() {
        for rest in [0, 0xff] {
            let mut region = text("label=room=kitchen\nlabel=led\n").into_bytes();
            region.resize(4096, rest);
            let settings = Settings::parse(&region).expect("settings");
            assert_eq!((settings.name.as_str(), settings.host.as_str(), settings.port), ("g1", "10.0.2.2", 1883));
            assert_eq!((settings.key.to_bytes(), settings.features.len()), ([15; 32], 2));
            let member = ("c1".into(), settings.key.mqtt_password());
            assert_eq!((settings.credentials, settings.resident, settings.reboots), (member, false, false));
        }
    }

    #[test]
    fn what_the_server_wants_goes_before_what_a_member_has() {
        let lines = "user=u\npassword=p=1\nresident=yes\nreboot=yes\n";
        let settings = Settings::parse(text(lines).as_bytes()).expect("settings");
        assert_eq!(settings.credentials, ("u".into(), "p=1".into()));
        assert_eq!((settings.resident, settings.reboots), (true, true));
    }

    #[test]
    fn a_network_may_be_open() {
        let settings = |lines: &str| Settings::parse(text(lines).as_bytes()).expect("settings");
        let wifi = |lines: &str| settings(lines).wifi.map(|wifi| (wifi.ssid, wifi.password));
        assert_eq!(wifi(""), None);
        assert_eq!(wifi("ssid=my net\n"), Some(("my net".into(), "".into())));
        assert_eq!(wifi("ssid=n\nwifi_password=a=b \nled=15\n"), Some(("n".into(), "a=b ".into())));
        assert_eq!(settings("led=15\n").led, Some(Led { pin: 15, kind: LedKind::High }));
        assert_eq!(settings("led=8,low\n").led, Some(Led { pin: 8, kind: LedKind::Low }));
    }

    #[test]
    fn other_settings_are_refused() {
        let error = |text: &str| Settings::parse(text.as_bytes()).expect_err("no settings");
        assert_eq!(error(""), SettingsError::Missing);
        assert_eq!(error("broccoli settings 1"), SettingsError::Bad("cluster"));
        assert_eq!(error(&text("colour=red")), SettingsError::Unknown);
        assert_eq!(error(&text("name=a b")), SettingsError::Bad("name"));
        assert_eq!(error(&text("key=0f")), SettingsError::Bad("key"));
        assert_eq!(error(&text("server=here")), SettingsError::Bad("server"));
        assert_eq!(error(&text("user=u")), SettingsError::Bad("user or password"));
        assert_eq!(error(&text("resident=maybe")), SettingsError::Bad("resident"));
        assert_eq!(error(&text("wifi_password=x")), SettingsError::Bad("ssid"));
        assert_eq!(error(&text("led=red")), SettingsError::Bad("led"));
        assert_eq!(error(&text("reboot=maybe")), SettingsError::Bad("reboot"));
        assert_eq!(error(&text(&"label=x\n".repeat(13))), SettingsError::Bad("label"));
    }
}
