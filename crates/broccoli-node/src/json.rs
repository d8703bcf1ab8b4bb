//! JSON in and out: results as a client prints them, arguments as a command line gives them.
//!
//! Owns the mapping between JSON and CBOR; never guesses: what JSON cannot express is an error.
//!
//! | CBOR | JSON |
//! |---|---|
//! | integer, -2^64 to 2^64 - 1 | the same digits |
//! | float | a number with a point or exponent; NaN and infinities are errors |
//! | text, array, bool, null | the same |
//! | bytes | base64 text |
//! | map | object; keys that are not text are written as the text of their JSON |
//! | tag | an error |

use std::fmt;

use broccoli_abi::cbor::{Head, Reader};
use broccoli_abi::{CborError, Mismatch, Type};
use broccoli_proto::Cbor;
use broccoli_proto::cbor::put_array_header;
use minicbor::Encoder;
use serde_json::Value;

/// A value that cannot be turned into the other form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A float that JSON has no way to write.
    NotFinite(&'static str),
    /// A CBOR tag, which JSON has no way to write.
    Tag(u64),
    /// A map in the key of a map. As text in text in text it would double with each level.
    MapInKey,
    /// Not one acceptable CBOR item, or nested too deep for one.
    Cbor(CborError),
    /// Not JSON: the reason and its place.
    Syntax(String),
    /// An integer literal beyond 64 bits.
    TooLarge(String),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::NotFinite(name) => write!(f, "the result holds {name}, which JSON cannot express"),
            JsonError::Tag(tag) => write!(f, "the result holds CBOR tag {tag}, which JSON cannot express"),
            JsonError::MapInKey => f.write_str("the result holds a map in the key of a map, which JSON cannot express"),
            JsonError::Cbor(error) => error.fmt(f),
            JsonError::Syntax(reason) => write!(f, "not JSON: {reason}"),
            JsonError::TooLarge(digits) => write!(f, "{digits} does not fit in 64 bits"),
        }
    }
}

impl std::error::Error for JsonError {}

/// The value as JSON on one line. Integers keep all their digits.
///
/// # Errors
/// For floats that are not finite, for tags, for maps in keys, and for bytes that are no CBOR item.
pub fn to_json(value: &Cbor) -> Result<String, JsonError> {
    broccoli_abi::validate_item(value.as_bytes()).map_err(JsonError::Cbor)?;
    let mut out = String::with_capacity(value.as_bytes().len() * 2);
    write_item(&mut Reader::new(value.as_bytes()), Place::Value, &mut out)?;
    Ok(out)
}

/// Where an item stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    Key,
}

/// Writes the next item; it must be valid, which bounds the recursion.
fn write_item(reader: &mut Reader<'_>, place: Place, out: &mut String) -> Result<(), JsonError> {
    match reader.head().map_err(JsonError::Cbor)? {
        Head::Int(n) => out.push_str(&n.to_string()),
        Head::Text(text) => out.push_str(&quoted(text)),
        Head::Bytes(bytes) => out.push_str(&quoted(&base64(bytes))),
        Head::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Head::Null => out.push_str("null"),
        Head::Float(x) if x.is_nan() => return Err(JsonError::NotFinite("NaN")),
        Head::Float(x) if x.is_infinite() => return Err(JsonError::NotFinite("an infinity")),
        Head::Float(x) => out.push_str(&Value::from(x).to_string()),
        Head::Tag(tag) => return Err(JsonError::Tag(tag)),
        Head::Array(len) => {
            out.push('[');
            for index in 0..len {
                out.push_str(if index == 0 { "" } else { ", " });
                write_item(reader, place, out)?;
            }
            out.push(']');
        }
        Head::Map(_) if place == Place::Key => return Err(JsonError::MapInKey),
        Head::Map(len) => {
            out.push('{');
            for index in 0..len {
                out.push_str(if index == 0 { "" } else { ", " });
                write_key(reader, out)?;
                out.push_str(": ");
                write_item(reader, Place::Value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_key(reader: &mut Reader<'_>, out: &mut String) -> Result<(), JsonError> {
    let mut key = String::new();
    write_item(reader, Place::Key, &mut key)?;
    out.push_str(&if key.starts_with('"') { key } else { quoted(&key) });
    Ok(())
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The value of a JSON text. Numbers without point and exponent are integers, all others floats.
///
/// # Errors
/// If it is not JSON, has an integer beyond 64 bits, or is nested too deep.
pub fn from_json(text: &str) -> Result<Cbor, JsonError> {
    let value: Value = serde_json::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
    check_integers(text)?;
    let mut out = Vec::new();
    put(&value, &mut out);
    broccoli_abi::validate_item(&out).map_err(JsonError::Cbor)?;
    Ok(Cbor::from_encoded(out))
}

/// Finds an integer that the JSON parser has rounded to a float. `text` must be valid JSON.
fn check_integers(text: &str) -> Result<(), JsonError> {
    let mut rest = text;
    while let Some(start) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        rest = &rest[start..];
        let end = if rest.starts_with('"') {
            string_len(rest)
        } else {
            let is_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
            let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
            let number = &rest[..end];
            let fits = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
            if !fits && !number.contains(['.', 'e', 'E']) {
                return Err(JsonError::TooLarge(number.chars().take(40).collect()));
            }
            end
        };
        rest = &rest[end..];
    }
    Ok(())
}

/// Bytes of the string literal that `text` starts with.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 2)
}

fn put(value: &Value, out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(&mut *out);
    let written = match value {
        Value::Null => encoder.null().map(|_| ()),
        Value::Bool(value) => encoder.bool(*value).map(|_| ()),
        Value::String(text) => encoder.str(text).map(|_| ()),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => encoder.u64(n).map(|_| ()),
            (None, Some(n)) => encoder.i64(n).map(|_| ()),
            // Every other number of the parser is a float.
            (None, None) => encoder.f64(number.as_f64().unwrap_or(f64::NAN)).map(|_| ()),
        },
        Value::Array(items) => {
            put_array_header(out, items.len());
            items.iter().for_each(|item| put(item, out));
            Ok(())
        }
        Value::Object(pairs) => {
            let header = encoder.map(pairs.len() as u64).map(|_| ());
            for (key, value) in pairs {
                put(&Value::from(key.as_str()), out);
                put(value, out);
            }
            header
        }
    };
    written.expect("writing to a Vec cannot fail");
}

/// An argument of a command line that does not fit its parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// The text is not JSON.
    NotJson {
        /// The text, shortened.
        text: String,
        /// The type of the parameter.
        expected: String,
    },
    /// JSON that cannot be a value.
    Json(JsonError),
    /// A value of another type.
    Mismatch(Mismatch),
    /// A `bytes` parameter takes base64 text.
    NotBase64(String),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgumentError::NotJson { text, expected } => {
                let hint = quoted(text).replace('\'', r"'\''");
                write!(f, "expected {expected}, got {text}, which is not JSON; a string is written '{hint}'")
            }
            ArgumentError::Json(error) => error.fmt(f),
            ArgumentError::Mismatch(mismatch) => mismatch.fmt(f),
            ArgumentError::NotBase64(text) => write!(f, "expected bytes as base64, got {text}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// One argument of a command line as a value of a parameter's type: for `str` the text as it is, for
/// `?str` too, except that `null` is null; for `bytes` base64; for everything else JSON.
///
/// # Errors
/// If the text is not JSON where it must be, or the value is of another type.
pub fn argument(text: &str, ty: &Type) -> Result<Cbor, ArgumentError> {
    let is_text = |ty: &Type| matches!(ty, Type::Str);
    match ty {
        Type::Str => return Ok(Cbor::encode(&text)),
        Type::Optional(inner) if is_text(inner) && text != "null" => return Ok(Cbor::encode(&text)),
        Type::Bytes => {
            let bytes = from_base64(text).ok_or_else(|| ArgumentError::NotBase64(shortened(text)))?;
            return Ok(Cbor::encode(&minicbor::bytes::ByteVec::from(bytes)));
        }
        _ => {}
    }
    let value = from_json(text).map_err(|error| match error {
        JsonError::Syntax(_) => ArgumentError::NotJson { text: shortened(text), expected: ty.to_string() },
        error => ArgumentError::Json(error),
    })?;
    ty.check(value.as_bytes()).map_err(ArgumentError::Mismatch)?;
    Ok(value)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * index) & 63) as usize];
            out.push(if index <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// The reverse of [`base64`], or `None` for anything else.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | BASE64.iter().position(|digit| digit == byte)? as u32;
        }
        bits <<= 6 * (4 - group.len());
        out.extend(&bits.to_be_bytes()[1..group.len().max(1)]);
    }
    // Only one text stands for these bytes.
    (base64(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests;
