//! JSON conversion: tables of both directions, of errors, and of arguments.

use broccoli_abi::Type;
use proptest::prelude::*;

use super::base64::{base64, from_base64};
use super::*;

fn assert_both_ways(table: &[(&str, &[u8])]) {
    for (json, cbor) in table {
        let value = Cbor::from_encoded(cbor.to_vec());
        assert_eq!(to_json(&value).as_deref(), Ok(*json));
        assert_eq!(from_json(json), Ok(value), "{json}");
    }
}

#[test]
fn values_go_both_ways() {
    assert_both_ways(&[
        ("null", &[0xf6]),
        ("true", &[0xf5]),
        ("false", &[0xf4]),
        ("0", &[0]),
        ("-1", &[0x20]),
        ("9223372036854775807", &[0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("-9223372036854775808", &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("18446744073709551615", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("1.0", &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("-0.0", &[0xfb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (r#""a\n\"ä😀""#, b"\x69a\n\"\xc3\xa4\xf0\x9f\x98\x80"),
        ("[]", &[0x80]),
        ("[1, [2, null]]", &[0x82, 1, 0x82, 2, 0xf6]),
        ("{}", &[0xa0]),
        (r#"{"a": 1, "b": {"c": []}}"#, b"\xa2\x61a\x01\x61b\xa1\x61c\x80"),
    ]);
}

#[test]
fn what_only_cbor_has() {
    let table: [(&[u8], &str); 7] = [
        (&[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "-18446744073709551616"),
        (&[0x40], r#""""#),
        (b"\x43abc", r#""YWJj""#),
        (b"\x42\xfb\xff", r#""+/8=""#),
        (b"\x41\x00", r#""AA==""#),
        (&[0xa3, 1, 2, 0xf6, 3, 0x82, 1, 2, 4], r#"{"1": 2, "null": 3, "[1, 2]": 4}"#),
        (&[0xf9, 0x3e, 0], "1.5"),
    ];
    for (cbor, json) in table {
        assert_eq!(to_json(&Cbor::from_encoded(cbor.to_vec())).as_deref(), Ok(json));
    }
}

#[test]
fn what_json_cannot_express_is_an_error() {
    let error = |cbor: &[u8]| to_json(&Cbor::from_encoded(cbor.to_vec())).unwrap_err().to_string();
    assert_eq!(error(&[0x81, 0xf9, 0x7e, 0]), "the result holds NaN, which JSON cannot express");
    assert_eq!(error(&[0xf9, 0xfc, 0]), "the result holds an infinity, which JSON cannot express");
    assert_eq!(error(&[0xc6, 0]), "the result holds CBOR tag 6, which JSON cannot express");
    assert_eq!(error(&[0x81]), "the CBOR ends inside an item");
    let map_in_key = "the result holds a map in the key of a map, which JSON cannot express";
    assert_eq!(error(&[0xa1, 0xa0, 0]), map_in_key);
    assert_eq!(error(&[0xa1, 0x81, 0xa1, 0, 0, 0]), map_in_key);
}

#[test]
fn something_stands_for_what_json_cannot_express() {
    let write = |cbor: &[u8]| {
        let Lossy { json, lost } = to_json_lossy(&Cbor::from_encoded(cbor.to_vec())).unwrap();
        (json, lost)
    };
    let float = |name| Some(JsonError::NotFinite(name));
    let infinity = [0x81, 0xa1, 0x61, b'a', 0xf9, 0x7c, 0];
    assert_eq!(write(&infinity), (r#"[{"a": "Infinity"}]"#.into(), float("an infinity")));
    assert_eq!(write(&[0x82, 0xf9, 0xfc, 0, 1]), (r#"["-Infinity", 1]"#.into(), float("an infinity")));
    assert_eq!(write(&[0xf9, 0x7e, 0]), (r#""NaN""#.into(), float("NaN")));
    assert_eq!(write(&[0x82, 0xc6, 0, 1]), ("[0, 1]".into(), Some(JsonError::Tag(6))));
    assert_eq!(write(&[0xa1, 0xa0, 0xf6]), (r#"{"h'a0'": null}"#.into(), Some(JsonError::MapInKey)));
    assert_eq!(write(&[0xa1, 0xf9, 0x7c, 0, 1]), (r#"{"Infinity": 1}"#.into(), float("an infinity")));
    assert_eq!(write(&[1]), ("1".into(), None));
    assert!(to_json_lossy(&Cbor::from_encoded(vec![0x81])).is_err());
}

#[test]
fn bad_json_is_refused() {
    let error = |json: &str| from_json(json).unwrap_err().to_string();
    assert_eq!(error("hello"), "not JSON: expected value at line 1 column 1");
    assert_eq!(error(""), "not JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(error("1 2"), "not JSON: trailing characters at line 1 column 3");
    assert_eq!(error("NaN"), "not JSON: expected value at line 1 column 1");
    assert_eq!(error("[1e400]"), "not JSON: number out of range at line 1 column 6");
    assert_eq!(error("[1, 18446744073709551616]"), "18446744073709551616 does not fit in 64 bits");
    assert_eq!(error(r#"["\\", -9223372036854775809]"#), "-9223372036854775809 does not fit in 64 bits");
    assert_eq!(error(&format!("{}1{}", "[".repeat(65), "]".repeat(65))), "nested deeper than 64 levels");
    assert!(from_json(&"[".repeat(100_000)).is_err());
    // Digits in strings are not numbers, and floats may be large.
    assert!(from_json(r#"{"99999999999999999999": "\"99999999999999999999", "x": 1e30}"#).is_ok());
}

#[test]
fn arguments_follow_their_types() {
    let table = [
        ("hello", "str", r#""hello""#),
        (r#""hello""#, "str", r#""\"hello\"""#),
        ("5", "str", r#""5""#),
        ("", "str", r#""""#),
        ("hello", "?str", r#""hello""#),
        ("null", "?str", "null"),
        ("5", "i64", "5"),
        ("5", "num", "5"),
        ("5.5", "num", "5.5"),
        ("5", "f64", "5"),
        ("null", "?i64", "null"),
        ("[1, 2]", "[i64]", "[1, 2]"),
        (r#"{"a": [1]}"#, "any", r#"{"a": [1]}"#),
        ("YWJj", "bytes", r#""YWJj""#),
        ("", "bytes", r#""""#),
    ];
    for (text, ty, json) in table {
        let ty = Type::parse(ty).unwrap();
        let value = argument(text, &ty).unwrap_or_else(|error| panic!("{text} as {ty}: {error}"));
        assert_eq!(to_json(&value).as_deref(), Ok(json), "{text} as {ty}");
        assert!(ty.accepts(value.as_bytes()), "{text} as {ty}");
    }
}

#[test]
fn wrong_arguments_say_what_to_write() {
    let table = [
        ("x", "num", "is a number, got x"),
        ("hello", "i64", "is a whole number, got hello"),
        ("it's", "any", r#"is any value in JSON, got it's; a text is written '"it'\''s"'"#),
        ("1.5", "i64", "is a whole number, got 1.5"),
        ("300", "u8", "is a whole number from 0 to 255, got 300"),
        ("-1", "u64", "is a whole number, 0 or more, got -1"),
        ("yes", "bool", "is true or false, got yes"),
        ("yes", "?bool", "is true or false, or null, got yes"),
        (
            "99999999999999999999",
            "i64",
            "is a whole number, got 99999999999999999999: 99999999999999999999 does not fit in 64 bits",
        ),
        ("1,2,3", "[num]", "is a list of numbers, got 1,2,3; a list is written '[1,2,3]'"),
        ("5", "[i64]", "is a list of whole numbers, got 5; a list is written '[5]'"),
        ("bed,chair", "[str]", r#"is a list of texts, got bed,chair; a list is written '["bed","chair"]'"#),
        ("[1, \"a\"]", "[i64]", "is a list of whole numbers, got [1, \"a\"]; such as '[1, 1]'"),
        ("a=1", "{f64}", "is a map of numbers, got a=1; such as '{\"a\": 1.5}'"),
        ("1,2", "(i64,str)", "is a list of 2, one for each of (i64,str), got 1,2; such as '[1, \"a\"]'"),
        ("YWJ", "bytes", "is bytes in base64, got YWJ"),
        ("YWJj=", "bytes", "is bytes in base64, got YWJj="),
        ("YWJk!", "bytes", "is bytes in base64, got YWJk!"),
    ];
    for (text, ty, expected) in table {
        let error = argument(text, &Type::parse(ty).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text} as {ty}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn base64_goes_both_ways(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
    }

    #[test]
    fn no_text_and_no_bytes_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(value) = from_json(&text) {
            prop_assert!(to_json(&value).is_ok());
        }
        let _ = argument(&text, &Type::Bytes);
        let bytes = Cbor::from_encoded(bytes);
        if let Ok(Lossy { json, lost }) = to_json_lossy(&bytes) {
            prop_assert!(serde_json::from_str::<Value>(&json).is_ok(), "{}", json);
            prop_assert_eq!(to_json(&bytes), lost.map_or(Ok(json), Err));
        }
    }

    #[test]
    fn floats_keep_their_value(x in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
        let value = Cbor::encode(&x);
        prop_assert_eq!(to_json(&value).and_then(|json| from_json(&json)), Ok(value));
    }
}
