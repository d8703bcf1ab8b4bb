//! Converts texts of a command line to values of a parameter's type.

use std::fmt;

use broccoli_abi::Type;
use broccoli_proto::Cbor;

use super::base64::from_base64;
use super::{JsonError, from_json, quoted};

/// An argument of a command line that does not fit its parameter. Displays as the text after the parameter's name: `is
/// a number, got x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentError {
    /// The type of the parameter.
    expected: Type,
    /// The text, shortened.
    text: String,
    /// A further hint.
    detail: Detail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Detail {
    /// Nothing.
    None,
    /// It would be valid JSON in quotes.
    Unquoted,
    /// It would be right in brackets: `[1,2]`.
    Brackets(String),
    /// It is JSON, but not a valid value.
    Json(JsonError),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ArgumentError { expected, text, detail } = self;
        write!(f, "is {}, got {text}", in_words(expected))?;
        match detail {
            Detail::None => example(expected).map_or(Ok(()), |example| write!(f, "; such as '{example}'")),
            Detail::Unquoted => write!(f, "; a text is written '{}'", quoted(text).replace('\'', r"'\''")),
            Detail::Brackets(list) => write!(f, "; a list is written '{list}'"),
            Detail::Json(error) => write!(f, ": {error}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// Converts one argument of a command line to a parameter's type. For `str` and `?str` it is the text itself, except
/// that `null` is null for `?str`; for `bytes` it is base64; for all other types it is JSON.
///
/// # Errors
/// If the text is not valid JSON where JSON is needed, or the value has another type.
pub fn argument(text: &str, ty: &Type) -> Result<Cbor, ArgumentError> {
    let is_text = |ty: &Type| matches!(ty, Type::Str);
    let wrong = |detail| ArgumentError { expected: ty.clone(), text: shortened(text), detail };
    match ty {
        Type::Str => return Ok(Cbor::encode(&text)),
        Type::Optional(inner) if is_text(inner) && text != "null" => return Ok(Cbor::encode(&text)),
        Type::Bytes => {
            let bytes = from_base64(text).ok_or_else(|| wrong(Detail::None))?;
            return Ok(Cbor::encode(&minicbor::bytes::ByteVec::from(bytes)));
        }
        _ => {}
    }
    let brackets = || list(&[text], ty).map_or(Detail::None, Detail::Brackets);
    let value = from_json(text).map_err(|error| match error {
        // A JSON text is one of the accepted values.
        JsonError::Syntax(_) if matches!(ty, Type::Any) => wrong(Detail::Unquoted),
        JsonError::Syntax(_) => wrong(brackets()),
        error => wrong(Detail::Json(error)),
    })?;
    if ty.accepts(value.as_bytes()) { Ok(value) } else { Err(wrong(brackets())) }
}

/// Converts texts of a command line to one list of this type, as JSON, if they fit.
pub fn list(texts: &[&str], ty: &Type) -> Option<String> {
    let takes_texts = matches!(ty, Type::List(items) if matches!(**items, Type::Str));
    let items: Vec<String> = match takes_texts {
        true => texts.iter().flat_map(|text| text.split(',')).map(quoted).collect(),
        false => texts.iter().map(|text| (*text).to_owned()).collect(),
    };
    let list = format!("[{}]", items.join(","));
    let fits = from_json(&list).is_ok_and(|value| matches!(ty, Type::List(_)) && ty.accepts(value.as_bytes()));
    fits.then_some(list)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The name of a type for people: `a number`, `a list of texts`.
fn in_words(ty: &Type) -> String {
    match ty {
        Type::List(items) => format!("a list of {}", plural(items)),
        Type::Tuple(items) => format!("a list of {}, one for each of {ty}", items.len()),
        Type::Map(values) => format!("a map of {}", plural(values)),
        Type::Optional(inner) => format!("{}, or null", in_words(inner)),
        Type::Fallible(inner) => in_words(inner),
        Type::Num | Type::F32 | Type::F64 => "a number".into(),
        Type::I8 | Type::I16 | Type::I32 | Type::U8 | Type::U16 | Type::U32 => {
            let range = range(ty).map(|(min, max)| format!(" from {min} to {max}"));
            format!("a whole number{}", range.unwrap_or_default())
        }
        Type::U64 => "a whole number, 0 or more".into(),
        Type::I64 => "a whole number".into(),
        Type::Bool => "true or false".into(),
        Type::Str => "a text".into(),
        Type::Bytes => "bytes in base64".into(),
        Type::Null => "null".into(),
        Type::Any => "any value in JSON".into(),
    }
}

fn range(ty: &Type) -> Option<(i64, i64)> {
    Some(match ty {
        Type::I8 => (i8::MIN.into(), i8::MAX.into()),
        Type::I16 => (i16::MIN.into(), i16::MAX.into()),
        Type::I32 => (i32::MIN.into(), i32::MAX.into()),
        Type::U8 => (0, u8::MAX.into()),
        Type::U16 => (0, u16::MAX.into()),
        Type::U32 => (0, u32::MAX.into()),
        _ => return None,
    })
}

fn plural(ty: &Type) -> String {
    match ty {
        Type::Num | Type::F32 | Type::F64 => "numbers".into(),
        Type::Str => "texts".into(),
        Type::Any => "values".into(),
        ty if matches!(ty, Type::I64 | Type::U64) || range(ty).is_some() => "whole numbers".into(),
        ty => format!("values of the type {ty}"),
    }
}

/// An example of a compound type, as JSON.
fn example(ty: &Type) -> Option<String> {
    fn any(ty: &Type) -> String {
        match ty {
            Type::List(items) => format!("[{0}, {0}]", any(items)),
            Type::Tuple(items) => format!("[{}]", items.iter().map(any).collect::<Vec<_>>().join(", ")),
            Type::Map(values) => format!("{{\"a\": {}}}", any(values)),
            Type::Optional(inner) | Type::Fallible(inner) => any(inner),
            Type::Num | Type::F32 | Type::F64 => "1.5".into(),
            Type::Bool => "true".into(),
            Type::Str => "\"a\"".into(),
            Type::Bytes => "\"YQ==\"".into(),
            Type::Null => "null".into(),
            _ => "1".into(),
        }
    }
    match ty {
        Type::Optional(inner) => example(inner),
        Type::List(_) | Type::Tuple(_) | Type::Map(_) => Some(any(ty)),
        _ => None,
    }
}
