//! The options of a task in the text: their names, units and ranges.

use std::ops::RangeInclusive;

use broccoli_proto::Options;
use broccoli_proto::options::{DELAYS_MS, LIMITS_MS, ON_MAX, PRIORITIES, RATE_MAX, RETRIES, Rate};

use crate::similar::closest;
use crate::value::{Value, found};

/// All options of `.set`, in the order of printing.
pub(crate) const NAMES: [&str; 15] = [
    "retries",
    "backoff",
    "backoff_max",
    "jitter",
    "timeout",
    "expires",
    "eta",
    "countdown",
    "priority",
    "rate",
    "on",
    "each",
    "partial",
    "deadline",
    "immutable",
];

/// Units of a rate, in milliseconds. Printing uses the largest that fits.
const RATE_UNITS: [(&str, u32); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Sets one option other than `immutable`.
///
/// # Errors
/// A message for the position of the option.
pub(crate) fn set(options: &mut Options, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "retries" => options.retries = Some(integer(name, value, RETRIES)? as u32),
        "priority" => options.priority = Some(integer(name, value, PRIORITIES)? as u8),
        "timeout" => options.timeout_ms = Some(milliseconds(name, value, LIMITS_MS)?),
        "countdown" => options.countdown_ms = Some(milliseconds(name, value, DELAYS_MS)?),
        "backoff" => options.backoff_ms = Some(milliseconds(name, value, DELAYS_MS)?),
        "backoff_max" => options.backoff_max_ms = Some(milliseconds(name, value, DELAYS_MS)?),
        "expires" => options.expires_ms = Some(milliseconds(name, value, LIMITS_MS)?),
        "eta" => options.eta_unix_ms = Some(milliseconds(name, value, DELAYS_MS)?),
        "deadline" => options.deadline_ms = Some(milliseconds(name, value, LIMITS_MS)?),
        "rate" => options.rate = Some(rate(value)?),
        "jitter" => options.jitter = Some(boolean(name, value)?),
        "each" => options.each = Some(boolean(name, value)?),
        "partial" => options.partial = Some(boolean(name, value)?),
        "on" => options.on = places(value)?,
        _ => {
            let near = closest(name, NAMES).map(|near| format!("did you mean `{near}`?"));
            let all = || format!("there are {}", NAMES.join(", "));
            return Err(format!("unknown option `{name}`: {}", near.unwrap_or_else(all)));
        }
    }
    Ok(())
}

pub(crate) fn boolean(name: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => Err(format!("`{name}` is True or False, found {}", found(other))),
    }
}

fn integer(name: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (min, max) = (range.start(), range.end());
    match value {
        Value::Int(n) if u64::try_from(*n).is_ok_and(|n| range.contains(&n)) => Ok(*n as u64),
        other => Err(format!("`{name}` is {min} to {max}, found {}", found(other))),
    }
}

/// Reads seconds as milliseconds.
pub(crate) fn milliseconds(name: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, String> {
    let seconds = match value {
        Value::Int(n) => *n as f64,
        Value::Float(x) => *x,
        other => return Err(format!("`{name}` is a number of seconds, found {}", found(other))),
    };
    let (min, max) = (*range.start() as f64 / 1000.0, *range.end() as f64 / 1000.0);
    if !(min..=max).contains(&seconds) {
        return Err(format!("`{name}` is {min} to {max} seconds, found {}", found(value)));
    }
    Ok((seconds * 1000.0).round() as u64)
}

/// Reads a rate: `"10/s"`, `"100/m"`, `"1/h"`, `"0.5/s"`, also `"1/400ms"` or `"10/5m"`. A plain number means tasks per
/// second.
fn rate(value: &Value) -> Result<Rate, String> {
    let text = match value {
        Value::Str(text) => text.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        other => return Err(no_rate(found(other))),
    };
    let (tasks, time) = text.split_once('/').unwrap_or((text.as_str(), "s"));
    let rate = parse_rate(tasks, time).ok_or_else(|| no_rate(found(value)))?;
    if rate.is_valid() {
        return Ok(rate);
    }
    Err(format!("`rate` is more than 0 and at most {RATE_MAX} tasks a second, found {}", found(value)))
}

/// Reads a number of tasks, maybe with a fraction, and a number of units of time.
fn parse_rate(tasks: &str, time: &str) -> Option<Rate> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unit_at = time.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = time.split_at(unit_at);
    let (_, unit_ms) = RATE_UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let count: u64 = if count.is_empty() { 1 } else { count.parse().ok()? };
    let per_ms = count.checked_mul(unit_ms.into())?;
    let (whole, fraction) = tasks.split_once('.').unwrap_or((tasks, "0"));
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let scale = 10u64.checked_pow(fraction.len() as u32)?;
    let tasks: u64 = format!("{whole}{fraction}").parse().ok()?;
    // `2.5/s` becomes 5 in 2 seconds. Whole numbers are not reduced.
    let shared = gcd(tasks, scale);
    let per_ms = u32::try_from(per_ms.checked_mul(scale / shared)?).ok()?;
    Some(Rate { tasks: u32::try_from(tasks / shared).ok()?, per_ms })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Formats a rate so that it parses back: `10/s`, `5/2s`.
pub(crate) fn rate_text(rate: Rate) -> String {
    let Rate { tasks, per_ms } = rate;
    let fits = RATE_UNITS.into_iter().find(|(_, unit_ms)| per_ms % unit_ms == 0);
    let (unit, unit_ms) = fits.unwrap_or(("ms", 1));
    match per_ms / unit_ms {
        1 => format!("{tasks}/{unit}"),
        count => format!("{tasks}/{count}{unit}"),
    }
}

fn no_rate(found: impl std::fmt::Display) -> String {
    format!("`rate` is a text such as \"10/s\", \"100/m\" or \"1/h\", or a number of tasks a second, found {found}")
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
