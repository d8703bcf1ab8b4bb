//! The options of a task in the text: names, units and ranges.

use broccoli_proto::Options;

use super::value::{Value, found};

/// Every option of `.set`, in the order in which they are printed.
pub(super) const NAMES: [&str; 14] = [
    "retries",
    "backoff",
    "backoff_max",
    "jitter",
    "timeout",
    "expires",
    "eta",
    "countdown",
    "priority",
    "on",
    "each",
    "partial",
    "deadline",
    "immutable",
];

/// Most retries.
const RETRIES_MAX: i64 = 1000;
/// Longest time and latest `eta`, in seconds: about 300 years, exact in milliseconds as a float.
const SECONDS_MAX: f64 = 1e10;
/// Most entries of `on`.
const ON_MAX: usize = 16;

/// Sets one option other than `immutable`.
///
/// # Errors
/// A message for the place of the option.
pub(super) fn set(options: &mut Options, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "retries" => options.retries = Some(integer(name, value, RETRIES_MAX)? as u32),
        "priority" => options.priority = Some(integer(name, value, 9)? as u8),
        "timeout" => options.timeout_ms = Some(milliseconds(name, value)?),
        "countdown" => options.countdown_ms = Some(milliseconds(name, value)?),
        "backoff" => options.backoff_ms = Some(milliseconds(name, value)?),
        "backoff_max" => options.backoff_max_ms = Some(milliseconds(name, value)?),
        "expires" => options.expires_ms = Some(milliseconds(name, value)?),
        "eta" => options.eta_unix_ms = Some(milliseconds(name, value)?),
        "deadline" => options.deadline_ms = Some(milliseconds(name, value)?),
        "jitter" => options.jitter = Some(boolean(name, value)?),
        "each" => options.each = Some(boolean(name, value)?),
        "partial" => options.partial = Some(boolean(name, value)?),
        "on" => options.on = places(value)?,
        _ => return Err(format!("unknown option `{name}`: there are {}", NAMES.join(", "))),
    }
    Ok(())
}

pub(super) fn boolean(name: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => Err(format!("`{name}` is True or False, found {}", found(other))),
    }
}

fn integer(name: &str, value: &Value, max: i64) -> Result<i64, String> {
    match value {
        Value::Int(n) if (0..=max).contains(n) => Ok(*n),
        other => Err(format!("`{name}` is 0 to {max}, found {}", found(other))),
    }
}

/// Seconds as a number, at millisecond precision.
pub(super) fn milliseconds(name: &str, value: &Value) -> Result<u64, String> {
    let seconds = match value {
        Value::Int(n) => *n as f64,
        Value::Float(x) => *x,
        other => return Err(format!("`{name}` is a number of seconds, found {}", found(other))),
    };
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("`{name}` is 0 to {SECONDS_MAX} seconds, found {}", found(value)));
    }
    Ok((seconds * 1000.0).round() as u64)
}

fn places(value: &Value) -> Result<Vec<String>, String> {
    let single = |value: &Value| match value {
        Value::Str(text) if !text.is_empty() => Ok(text.to_string()),
        Value::Str(_) => Err(no_place("an empty string")),
        other => Err(no_place(found(other))),
    };
    match value {
        Value::List(list) if list.items.is_empty() => Err(no_place("an empty list")),
        Value::List(list) if list.items.len() > ON_MAX => Err(no_place(format_args!("more than {ON_MAX}"))),
        Value::List(list) => list.items.iter().map(single).collect(),
        value => Ok(vec![single(value)?]),
    }
}

fn no_place(found: impl std::fmt::Display) -> String {
    format!("`on` is a node, a label such as \"room=kitchen\" or a list of them, found {found}")
}
