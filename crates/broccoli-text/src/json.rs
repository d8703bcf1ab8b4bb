//! Conversion between JSON and CBOR: results to print, and arguments of a command line.
//!
//! Nothing is guessed: a value that JSON cannot express is an error.
//!
//! | CBOR | JSON |
//! |---|---|
//! | integer, -2^64 to 2^64 - 1 | the same digits |
//! | float | a number with a point or exponent; NaN and infinities are errors, or texts in lossy JSON |
//! | text, array, bool, null | the same |
//! | bytes | base64 text |
//! | map | object; a key that is not text is written as the text of its JSON |
//! | tag | an error; in lossy JSON the content of the tag |

mod argument;
mod base64;

use std::fmt;

use broccoli_abi::CborError;
use broccoli_abi::cbor::{Head, Reader};
use broccoli_proto::Cbor;
use broccoli_proto::cbor::put_array_header;
use broccoli_proto::id::hex;
use minicbor::Encoder;
use serde_json::Value;

pub use self::argument::{ArgumentError, argument, list};
use self::base64::base64;

/// A value that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// A float that JSON cannot express.
    NotFinite(&'static str),
    /// A CBOR tag, which JSON cannot express.
    Tag(u64),
    /// A map in the key of a map. Its text would double in length with each level.
    MapInKey,
    /// Not exactly one valid CBOR item, or nested too deep.
    Cbor(CborError),
    /// Not JSON. The text has the reason and the position.
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

impl JsonError {
    /// The text that [`to_json_lossy`] writes instead.
    pub fn stand_in(&self) -> &'static str {
        match self {
            JsonError::NotFinite(_) => "texts such as \"Infinity\" stand for such numbers",
            JsonError::Tag(_) => "what is in the tag stands there alone",
            JsonError::MapInKey => "the CBOR of such a key stands there in hexadecimal digits",
            JsonError::Cbor(_) | JsonError::Syntax(_) | JsonError::TooLarge(_) => "nothing stands there",
        }
    }
}

/// Converts a value to JSON on one line. Integers keep all their digits.
///
/// # Errors
/// For floats that are not finite, tags, maps in keys, and invalid CBOR.
pub fn to_json(value: &Cbor) -> Result<String, JsonError> {
    let Lossy { json, lost } = to_json_lossy(value)?;
    lost.map_or(Ok(json), Err)
}

/// JSON with substitutes for values that JSON cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lossy {
    /// The JSON, on one line.
    pub json: String,
    /// The first value that was replaced, if any.
    pub lost: Option<JsonError>,
}

/// Converts a value to JSON on one line, for display. Values that JSON cannot express are replaced: floats by `"NaN"`,
/// `"Infinity"` and `"-Infinity"` (as in the JSON of Protocol Buffers), a tag by its content, and a map in a key by the
/// CBOR of the key in hexadecimal digits.
///
/// # Errors
/// For invalid CBOR.
pub fn to_json_lossy(value: &Cbor) -> Result<Lossy, JsonError> {
    broccoli_abi::validate_item(value.as_bytes()).map_err(JsonError::Cbor)?;
    let mut writer = Writer { out: String::with_capacity(value.as_bytes().len() * 2), lost: None };
    writer.item(&mut Reader::new(value.as_bytes()), Place::Value)?;
    Ok(Lossy { json: writer.out, lost: writer.lost })
}

/// Where an item is: a value, or a key of a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    Key,
}

struct Writer {
    out: String,
    /// The first value that JSON cannot express.
    lost: Option<JsonError>,
}

impl Writer {
    /// Writes the next item. The item must be valid CBOR, because this bounds the recursion.
    fn item(&mut self, reader: &mut Reader<'_>, place: Place) -> Result<(), JsonError> {
        match reader.head().map_err(JsonError::Cbor)? {
            Head::Int(n) => self.out.push_str(&n.to_string()),
            Head::Text(text) => self.out.push_str(&quoted(text)),
            Head::Bytes(bytes) => self.out.push_str(&quoted(&base64(bytes))),
            Head::Bool(value) => self.out.push_str(if value { "true" } else { "false" }),
            Head::Null => self.out.push_str("null"),
            Head::Float(x) if x.is_finite() => self.out.push_str(&Value::from(x).to_string()),
            Head::Float(x) => self.not_finite(x),
            Head::Tag(tag) => {
                self.lost.get_or_insert(JsonError::Tag(tag));
                self.item(reader, place)?;
            }
            Head::Array(len) => {
                self.out.push('[');
                for index in 0..len {
                    self.out.push_str(if index == 0 { "" } else { ", " });
                    self.item(reader, place)?;
                }
                self.out.push(']');
            }
            Head::Map(_) if place == Place::Key => return Err(JsonError::MapInKey),
            Head::Map(len) => {
                self.out.push('{');
                for index in 0..len {
                    self.out.push_str(if index == 0 { "" } else { ", " });
                    self.key(reader)?;
                    self.out.push_str(": ");
                    self.item(reader, Place::Value)?;
                }
                self.out.push('}');
            }
        }
        Ok(())
    }

    fn not_finite(&mut self, x: f64) {
        let (text, name) = match (x.is_nan(), x > 0.0) {
            (true, _) => ("\"NaN\"", "NaN"),
            (false, true) => ("\"Infinity\"", "an infinity"),
            (false, false) => ("\"-Infinity\"", "an infinity"),
        };
        self.out.push_str(text);
        self.lost.get_or_insert(JsonError::NotFinite(name));
    }

    fn key(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        let item = reader.item().map_err(JsonError::Cbor)?;
        let mut writer = Writer { out: String::new(), lost: None };
        let text = match writer.item(&mut Reader::new(item), Place::Key) {
            Err(JsonError::MapInKey) => {
                writer.lost = Some(JsonError::MapInKey);
                quoted(&format!("h'{}'", hex(item)))
            }
            written => written.map(|()| if writer.out.starts_with('"') { writer.out } else { quoted(&writer.out) })?,
        };
        self.out.push_str(&text);
        self.lost = self.lost.take().or(writer.lost);
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Converts a JSON text to a value. Numbers without point and exponent become integers, all others floats.
///
/// # Errors
/// If the text is not JSON, contains an integer beyond 64 bits, or is nested too deep.
pub fn from_json(text: &str) -> Result<Cbor, JsonError> {
    let value: Value = serde_json::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
    check_integers(text)?;
    let mut out = Vec::new();
    put(&value, &mut out);
    broccoli_abi::validate_item(&out).map_err(JsonError::Cbor)?;
    Ok(Cbor::from_encoded(out))
}

/// Finds an integer that the JSON parser rounded to a float. `text` must be valid JSON.
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

/// Length of the string literal at the start of `text`, in bytes.
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
            // All other numbers of the parser are floats.
            (None, None) => encoder.f64(number.as_f64().unwrap_or(f64::NAN)).map(|_| ()),
        },
        Value::Array(items) => {
            put_array_header(out, items.len());
            for item in items {
                put(item, out);
            }
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

#[cfg(test)]
mod tests;
