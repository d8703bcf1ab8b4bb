//! What is in an image, where it is, and what is refused.

mod support;

use broccoli_embassy::Settings as Read;
use broccoli_flash::{Chip, Image, ImageError, Led, LedKind, Settings, SettingsError, pack};
use broccoli_proto::module::DeployPublic;
use broccoli_proto::seal::ClusterKey;
use support::{partitions, program};

const SETTINGS_AT: usize = 0xb000;
const PROGRAM_AT: usize = 0x1_0000;
const SLOT_BYTES: u32 = 1664 * 1024;

fn image() -> Image {
    pack(Chip::Esp32c6, &program(Chip::Esp32c6, 5_000), &partitions(Chip::Esp32c6)).expect("an image")
}

fn settings() -> Settings {
    Settings {
        name: "c6".parse().expect("a name"),
        ssid: "our net".into(),
        wifi_password: "secret=42".into(),
        server: ("192.168.1.10".into(), 1884),
        credentials: None,
        cluster: "c1".parse().expect("a name"),
        key: ClusterKey::new([7; 32]),
        deploy_public: DeployPublic([9; 32]),
        labels: vec!["room=kitchen".into()],
        reboots: false,
        led: None,
    }
}

#[test]
fn everything_is_where_the_chip_looks_for_it() {
    let image = image();
    let bytes = image.bytes();
    // Magic, and the number of the chip.
    for start in [0, PROGRAM_AT] {
        assert_eq!((bytes[start], bytes[start + 12]), (0xe9, 13), "at {start:#x}");
    }
    assert_eq!(bytes[0x8000..0x8002], [0xaa, 0x50]);
    // Nothing is selected: the chip starts the first slot.
    assert!(bytes[0x9000..0xb000].iter().all(|byte| *byte == 0xff));
    assert_eq!(image.settings(), b"");
    let code: Vec<u8> = (0..5_000).map(|at| at as u8).collect();
    assert!(bytes[PROGRAM_AT..].windows(code.len()).any(|window| window == code));
    let (program, slot) = image.program_and_slot();
    assert_eq!((bytes.len(), slot), (PROGRAM_AT + program, SLOT_BYTES as usize));
}

/// A bootloader or a program that were taken for that of another chip would not start.
#[test]
fn an_image_is_for_one_chip() {
    let numbers = [(Chip::Esp32, 0), (Chip::Esp32s3, 9), (Chip::Esp32c3, 5), (Chip::Esp32c6, 13)];
    let pack = |chip| pack(chip, &program(chip, 5_000), &partitions(chip)).expect("an image");
    for (chip, number) in numbers {
        let image = pack(chip);
        let bytes = image.bytes();
        let bootloader = chip.bootloader_at();
        assert_eq!((image.chip(), bytes[bootloader + 12], bytes[PROGRAM_AT + 12]), (chip, number, number));
        assert_eq!(Image::parse(chip, bytes.to_vec()).expect("an image").chip(), chip);
        for (other, _) in numbers.into_iter().filter(|(other, _)| *other != chip) {
            let error = Image::parse(other, bytes.to_vec()).map(drop).expect_err("for another chip");
            assert_eq!(error, ImageError::WrongChip { asked: other, is: chip.to_string() });
            let advice = format!("`cargo xtask firmware --chip {other}` makes one");
            assert_eq!(error.to_string(), format!("the image is for {chip}, not for {other}; {advice}"));
            // The bootloader of one, the program of the other.
            let mut mixture = bytes[..PROGRAM_AT].to_vec();
            mixture.extend(&pack(other).bytes()[PROGRAM_AT..]);
            let error = Image::parse(chip, mixture).map(drop).expect_err("a mixture");
            assert_eq!(error, ImageError::WrongChip { asked: chip, is: other.to_string() });
        }
    }
}

/// The ESP32 looks for its bootloader elsewhere than other chips.
#[test]
fn a_bootloader_is_where_its_chip_looks_for_it() {
    for chip in Chip::ALL {
        let image = pack(chip, &program(chip, 5_000), &partitions(chip)).expect("an image");
        let bytes = image.bytes();
        let at = if chip == Chip::Esp32 { 0x1000 } else { 0 };
        assert_eq!((chip.bootloader_at(), bytes[at]), (at, 0xe9), "{chip}");
        assert!(bytes[..at].iter().all(|byte| *byte == 0xff), "{chip}");
        // The same bootloader at the other place.
        let other_at = 0x1000 - at;
        let mut moved = vec![0xff; bytes.len()];
        moved[PROGRAM_AT - 0x8000..].copy_from_slice(&bytes[PROGRAM_AT - 0x8000..]);
        let length = 0x7000 - at;
        moved[other_at..other_at + length].copy_from_slice(&bytes[at..at + length]);
        let error = Image::parse(chip, moved).map(drop).expect_err("moved");
        assert_eq!(error, ImageError::Damaged("the bootloader"), "{chip}");
    }
}

/// The bootloader reads the size of the flash from its header (byte 3, high half: 2 for 4 MB, 3 for 8 MB).
#[test]
fn the_partition_table_says_how_much_flash_there_must_be() {
    let folder = partitions(Chip::Esp32);
    let folder = folder.parent().expect("a folder");
    for (chip, table, slot, size) in [
        (Chip::Esp32, "4mb-one-slot.csv", 3328, 2),
        (Chip::Esp32, "8mb-two-slots.csv", 3328, 3),
        (Chip::Esp32s3, "8mb-two-slots.csv", 3328, 3),
        (Chip::Esp32c6, "4mb-two-slots.csv", 1664, 2),
    ] {
        let image = pack(chip, &program(chip, 5_000), &folder.join(table)).expect("an image");
        let of_flash = image.bytes()[chip.bootloader_at() + 3] >> 4;
        assert_eq!((image.program_and_slot().1, of_flash), (slot * 1024, size), "{chip} {table}");
    }
    let error = pack(Chip::Esp32, &program(Chip::Esp32, 100), &folder.join("none.csv")).map(drop).expect_err("no file");
    assert!(error.to_string().starts_with("the partition table of the image cannot be used: "), "{error}");
}

/// The firmware is no part of this workspace, so both have the numbers.
#[test]
fn the_firmware_has_the_same_pins() {
    for chip in Chip::ALL {
        let file = format!("{}/../../firmware/esp32/src/board/{chip}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).expect("the pins of the chip");
        let (_, digital) = text.split_once("digital {").expect("a table");
        let rows =
            digital.split('}').next().unwrap_or_default().lines().filter_map(|row| row.split_whitespace().next());
        let numbers: Vec<u8> = rows.map(|number| number.parse().expect("a number")).collect();
        assert_eq!(numbers, chip.pins(), "{chip}");
    }
}

#[test]
fn a_chip_reads_the_settings_that_were_written() {
    let mut image = image();
    let packed = image.bytes().to_vec();
    let mut settings = settings();
    settings.credentials = Some(("me".into(), "p=w".into()));
    (settings.led, settings.reboots) = (Some(Led { pin: 48, kind: LedKind::Colour }), true);
    let text = settings.text().expect("settings");
    image.set_settings(&text).expect("room");
    assert_eq!(image.settings(), text.as_bytes());
    let read = Read::parse(&image.bytes()[SETTINGS_AT..SETTINGS_AT + 0x1000]).expect("settings");
    assert_eq!((read.name, read.cluster), (settings.name, settings.cluster));
    assert_eq!((read.host.as_str(), read.port), ("192.168.1.10", 1884));
    assert_eq!((read.key.to_bytes(), read.deploy_public), ([7; 32], DeployPublic([9; 32])));
    assert_eq!((read.features, read.led, read.reboots), (settings.labels, settings.led, true));
    assert_eq!(read.credentials, ("me".into(), "p=w".into()));
    let wifi = read.wifi.expect("a network");
    assert_eq!((wifi.ssid.as_str(), wifi.password.as_str()), ("our net", "secret=42"));
    // The rest is as it was, and shorter settings leave nothing of longer ones.
    let rest = |bytes: &[u8]| [&bytes[..SETTINGS_AT], &bytes[SETTINGS_AT + 0x1000..]].concat();
    assert!(rest(image.bytes()) == rest(&packed));
    image.set_settings("").expect("room");
    assert!(image.bytes() == packed);
    Image::parse(Chip::Esp32c6, image.bytes().to_vec()).expect("an image");
}

#[test]
fn the_longest_settings_fit() {
    let mut longest = settings();
    longest.ssid = "s".repeat(32);
    longest.wifi_password = "p".repeat(64);
    longest.server.0 = "h".repeat(253);
    longest.credentials = Some(("u".repeat(400), "p".repeat(400)));
    longest.labels = vec!["l".repeat(64); 12];
    let text = longest.text().expect("settings");
    image().set_settings(&text).expect("room");
    assert_eq!(Read::parse(text.as_bytes()).expect("settings").features.len(), 12);
    let error = image().set_settings(&"x".repeat(4_096)).expect_err("too long");
    assert_eq!(error, ImageError::SettingsTooLong { settings: 4_096, room: 4_095 });
}

#[test]
fn what_a_chip_could_not_use_is_refused() {
    let error = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        settings.text().expect_err("refused")
    };
    assert_eq!(error(|s| s.ssid = "ä".repeat(17)), SettingsError::Ssid(34));
    assert_eq!(error(|s| s.ssid.clear()), SettingsError::Ssid(0));
    assert_eq!(error(|s| s.wifi_password = "1234567".into()), SettingsError::WifiPassword(7));
    assert_eq!(error(|s| s.wifi_password = "x".repeat(65)), SettingsError::WifiPassword(65));
    assert_eq!(error(|s| s.server.0 = "fe80::1".into()), SettingsError::Ipv6);
    assert_eq!(error(|s| s.server.0 = "127.0.0.1".into()), SettingsError::Loopback("127.0.0.1".into()));
    assert_eq!(error(|s| s.server.0 = "pi.local".into()), SettingsError::Mdns("pi.local".into()));
    assert_eq!(error(|s| s.server.0 = "PI.LOCAL.".into()), SettingsError::Mdns("PI.LOCAL.".into()));
    assert_eq!(error(|s| s.labels = vec!["l".into(); 13]), SettingsError::Labels);
    assert_eq!(error(|s| s.labels = vec!["l".repeat(65)]), SettingsError::Label("l".repeat(65)));
    let control = SettingsError::Control("the password of the Wi-Fi network");
    assert_eq!(error(|s| s.wifi_password = "12345678\nkey=0".into()), control);
    assert_eq!(error(|s| s.labels = vec!["a\nresident=yes".into()]), SettingsError::Control("a label"));
}

#[test]
fn damage_is_noticed() {
    let parse = |bytes: Vec<u8>| Image::parse(Chip::Esp32c6, bytes).map(drop);
    let whole = image().bytes().to_vec();
    let with = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        parse(bytes)
    };
    assert_eq!(parse(Vec::new()), Err(ImageError::NotAnImage));
    assert_eq!(parse(b"\x7fELF".repeat(100)), Err(ImageError::NotAnImage));
    assert_eq!(with(0), Err(ImageError::NotAnImage));
    assert_eq!(with(100), Err(ImageError::Damaged("the bootloader")));
    assert!(matches!(with(0x8004), Err(ImageError::Table(_))), "{:?}", with(0x8004));
    assert_eq!(with(PROGRAM_AT + 1_000), Err(ImageError::Damaged("the program")));
    for length in [PROGRAM_AT - 1, PROGRAM_AT + 30, whole.len() - 1] {
        let error = parse(whole[..length].to_vec()).expect_err("cut off");
        assert!(matches!(error, ImageError::Damaged("the program") | ImageError::NotAnImage), "{length}: {error:?}");
    }
    assert_eq!(parse(whole[..0x8000].to_vec()), Err(ImageError::Damaged("the partition table")));
    // The number of the ESP32-C3.
    let mut other = whole.clone();
    other[12] = 5;
    assert_eq!(parse(other), Err(ImageError::WrongChip { asked: Chip::Esp32c6, is: "esp32c3".into() }));
}

#[test]
fn programs_that_are_none_or_too_large_are_not_packed() {
    let error =
        |program: &[u8]| pack(Chip::Esp32c6, program, &partitions(Chip::Esp32c6)).map(drop).expect_err("no image");
    assert!(matches!(error(b"#!/bin/sh"), ImageError::Pack(_)));
    let ImageError::TooLarge { program: bytes, slot } = error(&program(Chip::Esp32c6, SLOT_BYTES)) else {
        panic!("not too large")
    };
    assert!(bytes > slot && slot == SLOT_BYTES, "{bytes} {slot}");
    let text = error(&program(Chip::Esp32c6, SLOT_BYTES)).to_string();
    assert_eq!(text, format!("the program has {bytes} bytes, its slot {slot}: {} too many", bytes - slot));
}
