//! The firmware of every later version can read settings that a released version has written.
//!
//! `tests/data/settings-VERSION-….txt` is never changed. A version that writes different settings gets its own files:
//! `FIXTURES=write cargo test -p broccoli-flash --test formats`.

use std::fs;
use std::path::{Path, PathBuf};

use broccoli_embassy::Settings as Read;
use broccoli_flash::{Led, LedKind, Settings};
use broccoli_proto::module::DeployPublic;
use broccoli_proto::seal::ClusterKey;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// With all that there may be.
fn full() -> Settings {
    Settings {
        name: "c6".parse().expect("a name"),
        ssid: "our net".into(),
        wifi_password: "secret=42".into(),
        server: ("192.168.1.10".into(), 1884),
        credentials: Some(("me".into(), "p=w".into())),
        cluster: "c1a2b3c4".parse().expect("a name"),
        key: ClusterKey::new([7; 32]),
        deploy_public: DeployPublic([9; 32]),
        labels: vec!["room=kitchen".into(), "led".into()],
        reboots: true,
        led: Some(Led { pin: 15, kind: LedKind::High }),
    }
}

/// With what there must be.
fn least() -> Settings {
    Settings {
        wifi_password: String::new(),
        credentials: None,
        labels: Vec::new(),
        reboots: false,
        led: None,
        ..full()
    }
}

/// The files of a kind, of each version.
fn files(kind: &str) -> Vec<String> {
    let all = fs::read_dir(data()).expect("listed").map(|entry| entry.expect("an entry").path());
    let of_kind = all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(kind)));
    of_kind.map(|path| fs::read_to_string(path).expect("read")).collect()
}

#[test]
fn the_settings_of_this_version_are_kept() {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    for (kind, settings) in [("full", full()), ("least", least())] {
        let path = data().join(format!("settings-{major}.{minor}-{kind}.txt"));
        let text = settings.text().expect("settings");
        if std::env::var("FIXTURES").is_ok_and(|what| what == "write") {
            assert!(!path.exists(), "{} is there: what was released does not change", path.display());
            fs::write(&path, &text).expect("written");
        }
        assert_eq!(text, fs::read_to_string(&path).expect("a fixture of this version; see the head of this file"));
    }
}

#[test]
fn settings_of_every_version_are_read() {
    let (fulls, leasts) = (files("-full.txt"), files("-least.txt"));
    assert!(!fulls.is_empty() && fulls.len() == leasts.len(), "each version has both");
    for text in fulls {
        let (read, written) = (Read::parse(text.as_bytes()).expect("settings"), full());
        assert_eq!((read.name, read.cluster), (written.name, written.cluster));
        assert_eq!((read.host, read.port), written.server);
        assert_eq!((read.key.to_bytes(), read.deploy_public), ([7; 32], DeployPublic([9; 32])));
        assert_eq!((read.features, read.led, read.reboots), (written.labels, written.led, true));
        assert_eq!(Some(read.credentials), written.credentials);
        let wifi = read.wifi.expect("a network");
        assert_eq!((wifi.ssid, wifi.password), (written.ssid, written.wifi_password));
    }
    for text in leasts {
        let read = Read::parse(text.as_bytes()).expect("settings");
        assert_eq!((read.features.len(), read.led, read.reboots, read.resident), (0, None, false, false));
        assert_eq!(read.credentials, ("c1a2b3c4".into(), read.key.mqtt_password()));
        assert_eq!(read.wifi.expect("a network").password, "");
    }
}
