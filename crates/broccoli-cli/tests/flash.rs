//! `broccoli flash` without the port: the content of the image, and errors that are found before anything is written.
#![cfg(feature = "flash")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "../../broccoli-flash/tests/support/mod.rs"]
mod esp;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use broccoli_flash::{Chip, Image, pack};
use support::{Home, finish};

/// A home with a cluster, and with a firmware where the command looks for it.
async fn home() -> Home {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let image = pack(Chip::Esp32c6, &esp::program(Chip::Esp32c6, 5_000), &esp::partitions(Chip::Esp32c6)).unwrap();
    fs::create_dir(home.0.join("dist")).unwrap();
    home.write("dist/broccoli-esp32c6.bin", image.bytes());
    home
}

const WIFI: [&str; 7] = ["flash", "--chip", "esp32c6", "--ssid", "our net", "--password", "secret=42"];
const SERVER: [&str; 2] = ["--server", "mqtt://192.168.1.10"];

#[tokio::test]
async fn an_image_holds_the_firmware_and_who_the_node_is() {
    let home = home().await;
    let args =
        ["--name", "c6-1", "--label", "room=kitchen", "--allow-reboot", "--led", "15", "--image-only", "out.bin"];
    let told = home.run(&[&WIFI[..], &SERVER, &args].concat()).await.ok();
    let cluster = home.cluster_file();
    let field = |name: &str| cluster[name].as_str().unwrap().to_owned();
    let (id, key, deploy_public) = (field("cluster"), field("key"), field("deploy_public"));
    assert_eq!(told, format!("c6-1  esp32c6  cluster {id}  mqtt://192.168.1.10:1883  in out.bin, for address 0\n"));
    let bytes = fs::read(home.0.join("out.bin")).unwrap();
    let image = Image::parse(Chip::Esp32c6, bytes.clone()).unwrap();
    let settings = format!(
        "broccoli settings 1\nname=c6-1\nssid=our net\nserver=192.168.1.10:1883\ncluster={id}\nkey={key}\n\
         deploy_public={deploy_public}\nwifi_password=secret=42\nlabel=room=kitchen\nreboot=yes\nled=15\n"
    );
    assert_eq!(String::from_utf8_lossy(image.settings()), settings);
    // The rest is the firmware, unchanged.
    let mut rest = image;
    rest.set_settings("").unwrap();
    assert!(rest.bytes() == fs::read(home.0.join("dist/broccoli-esp32c6.bin")).unwrap());
    // It contains the key of the cluster.
    assert_eq!(fs::metadata(home.0.join("out.bin")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_is_not_told_is_found_elsewhere() {
    let home = home().await;
    let image = fs::read(home.0.join("dist/broccoli-esp32c6.bin")).unwrap();
    home.write("mine.bin", image);
    let args = ["flash", "--chip", "ESP32-C6", "--ssid", "net", "--image", "mine.bin", "--image-only", "out.bin"];
    let mut command = home.command(&args);
    command.env("BROCCOLI_WIFI_PASSWORD", "from outside").env("BROCCOLI_SERVER", "mqtt://me:p%3Dw@pi.lan:7");
    let told = finish(command).await.ok();
    let (name, _) = told.split_once("  esp32c6  ").unwrap();
    assert!(name.starts_with("esp32c6-") && name.len() == "esp32c6-012345".len(), "{told}");
    let image = Image::parse(Chip::Esp32c6, fs::read(home.0.join("out.bin")).unwrap()).unwrap();
    let settings = String::from_utf8_lossy(image.settings()).into_owned();
    for line in ["wifi_password=from outside", "server=pi.lan:7", "user=me", "password=p=w", &format!("name={name}")] {
        assert!(settings.lines().any(|known| known == line), "no {line} in {settings}");
    }
    // An open network.
    let args = ["flash", "--chip", "esp32c6", "--ssid", "net", "--password", "", "--image-only", "out.bin"];
    home.run(&[&args[..], &SERVER].concat()).await.ok();
    let image = Image::parse(Chip::Esp32c6, fs::read(home.0.join("out.bin")).unwrap()).unwrap();
    assert!(!String::from_utf8_lossy(image.settings()).contains("wifi_password"));
}

#[tokio::test]
async fn a_board_by_its_name_says_its_chip_and_its_led() {
    let home = home().await;
    let args = ["flash", "--board", "esp32c6-devkit", "--ssid", "net", "--password", "", "--image-only", "out.bin"];
    let led = async |more: &[&str]| {
        home.run(&[&args[..], &SERVER, more].concat()).await.ok();
        let image = Image::parse(Chip::Esp32c6, fs::read(home.0.join("out.bin")).unwrap()).unwrap();
        let settings = String::from_utf8_lossy(image.settings()).into_owned();
        settings.lines().find_map(|line| line.strip_prefix("led=").map(str::to_owned))
    };
    assert_eq!(led(&[]).await.as_deref(), Some("8,colour"));
    assert_eq!(led(&["--led", "18,low"]).await.as_deref(), Some("18,low"));
}

#[tokio::test]
async fn each_chip_has_its_own_firmware() {
    let home = home().await;
    let packed = pack(Chip::Esp32c3, &esp::program(Chip::Esp32c3, 4_000), &esp::partitions(Chip::Esp32c3)).unwrap();
    home.write("dist/broccoli-esp32c3.bin", packed.bytes());
    let args = ["flash", "--chip", "esp32-c3", "--ssid", "net", "--password", "", "--image-only", "out.bin"];
    let told = home.run(&[&args[..], &SERVER].concat()).await.ok();
    let (name, _) = told.split_once("  esp32c3  ").unwrap();
    assert!(name.starts_with("esp32c3-") && name.len() == "esp32c3-012345".len(), "{told}");
    let mut image = Image::parse(Chip::Esp32c3, fs::read(home.0.join("out.bin")).unwrap()).unwrap();
    image.set_settings("").unwrap();
    assert!(image.bytes() == packed.bytes());
}

/// The error of a command that fails before anything is written.
async fn refused(home: &Home, parts: &[&[&str]]) -> String {
    let args = parts.concat();
    let ended = home.run(&args).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ended.stderr);
    assert!(!home.0.join("out.bin").exists(), "{args:?}");
    ended.stderr
}

#[tokio::test]
async fn wrong_use_is_found_before_anything_is_written() {
    let home = home().await;
    let out = ["--image-only", "out.bin"];
    let with_ssid = |ssid: &'static str| ["flash", "--chip", "esp32c6", "--ssid", ssid, "--password", "secret=42"];
    let told = refused(&home, &[&with_ssid("a name of more than thirty-two bytes"), &SERVER, &out]).await;
    assert_eq!(told, "error: the name of a Wi-Fi network has 1 to 32 bytes, this one has 36\n");
    let told = refused(&home, &[&["flash", "--chip", "esp8266", "--ssid", "n", "--password", ""], &out]).await;
    assert!(told.contains("there is no firmware for \"esp8266\"; there is for esp32, "), "{told}");
    let for_s3 = ["flash", "--board", "esp32s3-devkit", "--ssid", "n", "--password", ""];
    let told = refused(&home, &[&for_s3, &SERVER, &out]).await;
    assert!(told.starts_with("error: cannot read the firmware dist/broccoli-esp32s3.bin: "), "{told}");
    assert!(told.contains("build it with `cargo xtask firmware --chip esp32s3`"), "{told}");
    let for_c3 =
        ["flash", "--chip", "esp32c3", "--ssid", "n", "--password", "", "--image", "dist/broccoli-esp32c6.bin"];
    let told = refused(&home, &[&for_c3, &SERVER, &out]).await;
    assert_eq!(
        told,
        "error: dist/broccoli-esp32c6.bin: the image is for esp32c6, not for esp32c3; `cargo xtask firmware --chip \
         esp32c3` makes one\n"
    );
    let told = refused(&home, &[&WIFI, &SERVER, &out, &["--image", "none.bin"]]).await;
    assert!(told.starts_with("error: cannot read the firmware none.bin: No such file"), "{told}");
    assert!(told.contains("cargo xtask firmware --chip esp32c6"), "{told}");
    home.write("other.bin", b"not an image");
    let told = refused(&home, &[&WIFI, &SERVER, &out, &["--image", "other.bin"]]).await;
    assert_eq!(told, "error: other.bin: this is no firmware image; `cargo xtask firmware` makes one\n");
    // The chip needs a server, but the cluster file names none.
    let told = refused(&home, &[&WIFI, &out]).await;
    assert!(told.starts_with("error: a chip cannot reach 127.0.0.1: name the server"), "{told}");
    let told = refused(&home, &[&with_ssid("n")[..5], &SERVER, &out]).await;
    assert!(told.starts_with("error: the password of the Wi-Fi network is missing"), "{told}");
    let told = refused(&home, &[&WIFI, &SERVER, &["--port", "/dev/ttyNone7"]]).await;
    assert_eq!(told, "error: there is no serial port /dev/ttyNone7: is the board plugged in?\n");
    let told = refused(&home, &[&WIFI, &["--server", "mqtt://pi.local"], &out]).await;
    assert_eq!(
        told,
        "error: a chip cannot look up pi.local (mDNS): name the server by its IPv4 address, or by a name in DNS\n"
    );
    let told = refused(&home, &[&WIFI, &SERVER, &out, &["--led", "99"]]).await;
    assert!(told.starts_with("error: esp32c6 has no pin 99 for a LED: use one of 7, 8, "), "{told}");
    let told = refused(&home, &[&WIFI, &SERVER, &out, &["--led", "red"]]).await;
    assert!(told.contains("write the number of its pin, with ,low"), "{told}");
    let told =
        refused(&home, &[&["flash", "--board", "pico", "--ssid", "n", "--password", ""], &SERVER[..], &out]).await;
    assert!(told.contains("there is no board \"pico\": use one of "), "{told}");
    // Neither a port nor a file; then both.
    refused(&home, &[&WIFI, &SERVER]).await;
    refused(&home, &[&WIFI, &SERVER, &out, &["--port", "/dev/ttyNone7"]]).await;
}

#[tokio::test]
async fn without_a_cluster_there_is_nothing_to_join() {
    let ended = Home::new().run(&[&WIFI[..], &["--image-only", "out.bin"]].concat()).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("begin a cluster here with `broccoli up`"), "{}", ended.stderr);
}
