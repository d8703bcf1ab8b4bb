//! The allowed values of task options, in one table for all code that writes or reads them.

use core::fmt;
use core::ops::RangeInclusive;

use minicbor::{Decode, Encode};

use crate::Options;

/// How many times a failed task may be retried.
pub const RETRIES: RangeInclusive<u64> = 0..=1000;
/// Priorities.
pub const PRIORITIES: RangeInclusive<u64> = 0..=9;
/// Delays and times in milliseconds, up to about 300 years. As a float of seconds they are exact.
pub const DELAYS_MS: RangeInclusive<u64> = 0..=10_000_000_000_000;
/// Time limits in milliseconds. 0 is not allowed, because nothing could meet it.
pub const LIMITS_MS: RangeInclusive<u64> = 1..=10_000_000_000_000;
/// How many entries `on` may have.
pub const ON_MAX: usize = 16;
/// The highest rate, in tasks per second.
pub const RATE_MAX: u32 = 1_000_000;

/// Longest key of a submit, in bytes. An empty key is not one.
pub const KEY_BYTES_MAX: usize = 128;
/// Most labels in the settings of a chip. Its firmware adds the capabilities of its board.
pub const CHIP_LABELS_MAX: usize = 12;
/// Longest label or capability of a node, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

/// Whether a node may have this label or capability: `led`, `room=kitchen`. It has no spaces and no control
/// characters, and neither side of `=` is empty. So it can be requested and shown as it is.
pub fn is_label(text: &str) -> bool {
    let is_clean = |c: char| !c.is_whitespace() && !c.is_control();
    let (name, value) = text.split_once('=').unwrap_or((text, "-"));
    text.len() <= LABEL_BYTES_MAX && !name.is_empty() && !value.is_empty() && text.chars().all(is_clean)
}

/// At most this many starts in this time, in the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Rate {
    /// Starts …
    #[n(0)]
    pub tasks: u32,
    /// … in this time, in milliseconds.
    #[n(1)]
    pub per_ms: u32,
}

impl Rate {
    /// Whether this is at least one start in some time, and at most [`RATE_MAX`] a second.
    pub fn is_valid(self) -> bool {
        let most = u64::from(self.per_ms) * u64::from(RATE_MAX / 1000);
        self.tasks > 0 && u64::from(self.tasks) <= most
    }

    /// The time between two starts, in microseconds, rounded up so that the limit holds.
    pub fn interval_us(self) -> u64 {
        (u64::from(self.per_ms) * 1000).div_ceil(u64::from(self.tasks.max(1)))
    }
}

/// `10 in 1000 ms`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} ms", self.tasks, self.per_ms)
    }
}

/// An option has an invalid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// A number is out of its range.
    Number {
        /// The option.
        option: &'static str,
        /// Its value.
        found: u64,
        /// The smallest valid value.
        min: u64,
        /// The largest valid value.
        max: u64,
        /// ` ms`, or nothing.
        unit: &'static str,
    },
    /// More than [`ON_MAX`] entries of `on`.
    Places(usize),
    /// An entry of `on` is empty.
    NoPlace,
    /// A rate is 0, or higher than [`RATE_MAX`] per second.
    Rate(Rate),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Number { option, found, min, max, unit } => {
                write!(f, "{option} is {found}{unit}, must be {min} to {max}{unit}")
            }
            OptionError::Places(found) => write!(f, "on has {found} entries, must be 0 to {ON_MAX}"),
            OptionError::NoPlace => f.write_str("on has an empty entry, must be a node, a label or a capability"),
            OptionError::Rate(rate) => write!(f, "rate is {rate}, must be 1 to {RATE_MAX} in a second or longer"),
        }
    }
}

impl core::error::Error for OptionError {}

impl Options {
    /// Checks that every option that is set has a valid value.
    ///
    /// # Errors
    /// The first option that has not.
    pub fn check(&self) -> Result<(), OptionError> {
        let numbers = [
            ("retries", self.retries.map(u64::from), RETRIES, ""),
            ("priority", self.priority.map(u64::from), PRIORITIES, ""),
            ("timeout", self.timeout_ms, LIMITS_MS, " ms"),
            ("expires", self.expires_ms, LIMITS_MS, " ms"),
            ("deadline", self.deadline_ms, LIMITS_MS, " ms"),
            ("countdown", self.countdown_ms, DELAYS_MS, " ms"),
            ("eta", self.eta_unix_ms, DELAYS_MS, " ms"),
            ("backoff", self.backoff_ms, DELAYS_MS, " ms"),
            ("backoff_max", self.backoff_max_ms, DELAYS_MS, " ms"),
        ];
        for (option, value, range, unit) in numbers {
            if let Some(found) = value.filter(|value| !range.contains(value)) {
                let (min, max) = range.into_inner();
                return Err(OptionError::Number { option, found, min, max, unit });
            }
        }
        if self.on.len() > ON_MAX {
            return Err(OptionError::Places(self.on.len()));
        }
        if self.on.iter().any(alloc::string::String::is_empty) {
            return Err(OptionError::NoPlace);
        }
        match self.rate.filter(|rate| !rate.is_valid()) {
            Some(rate) => Err(OptionError::Rate(rate)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_be_asked_for_and_shown() {
        for good in ["led", "room=kitchen", "küche", "a=b=c", "v=1.2/3"] {
            assert!(is_label(good), "{good}");
        }
        let long = "x".repeat(LABEL_BYTES_MAX + 1);
        for bad in ["", "=", "room=", "=kitchen", "a b", " led", "a\nb", "a\u{1b}[2J", "a\tb", "a\u{a0}b", &long] {
            assert!(!is_label(bad), "{bad:?}");
        }
    }
}
