//! How a task fails: with a text, or with a request for a retry.

use alloc::borrow::Cow;
use alloc::string::String;
use core::time::Duration;

use broccoli_abi::RETRY_AFTER_MS_MAX;

use crate::Encoder;

/// The error of a task that asks for a retry after a pause.
///
/// Each retry counts against the `retries` of the task. If nobody has set `retries`, the task may ask three times.
/// When they are used up, the task fails with the text.
///
/// ```
/// use broccoli_sdk::prelude::*;
/// use core::time::Duration;
///
/// # fn read_sensor() -> Option<f64> { None }
/// #[task]
/// fn temperature() -> Result<f64, Retry> {
///     read_sensor().ok_or(Retry::after(Duration::from_secs(2)).because("no answer from the sensor"))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    after_ms: u64,
    text: Cow<'static, str>,
}

impl Retry {
    /// Asks for a retry after this time, in whole milliseconds.
    #[must_use]
    pub fn after(pause: Duration) -> Self {
        let after_ms = millis(pause).min(RETRY_AFTER_MS_MAX);
        Self { after_ms, text: Cow::Borrowed("asks to be tried again") }
    }

    /// Adds the reason, for whoever waits for the result.
    #[must_use]
    pub fn because(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..self }
    }
}

/// The error of a task that may fail permanently or ask for a retry. `?` and `into` turn texts and
/// [`Retry`] into it.
///
/// ```
/// use broccoli_sdk::prelude::*;
/// use core::time::Duration;
///
/// #[task]
/// fn open(door: u8) -> Result<(), Failure> {
///     match door {
///         1 => Ok(()),
///         2 => Err(Retry::after(Duration::from_secs(1)).because("somebody stands in it").into()),
///         _ => Err("no such door".into()),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A permanent failure. It is retried as well if `retries` of the task are set.
    Text(Cow<'static, str>),
    /// A request for a retry after a pause.
    Retry(Retry),
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Retry> for Failure {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

/// The types that can be the error of a task: every text, [`Retry`] and [`Failure`].
pub trait TaskError {
    /// Writes the body of the error: a text, or `[text, after_ms]`.
    fn encode_error(&self, e: &mut Encoder);
}

impl<E: AsRef<str>> TaskError for E {
    fn encode_error(&self, e: &mut Encoder) {
        e.str(self.as_ref());
    }
}

impl TaskError for Retry {
    fn encode_error(&self, e: &mut Encoder) {
        e.array(2);
        e.str(&self.text);
        e.uint(self.after_ms);
    }
}

impl TaskError for Failure {
    fn encode_error(&self, e: &mut Encoder) {
        match self {
            Self::Text(text) => e.str(text),
            Self::Retry(retry) => retry.encode_error(e),
        }
    }
}

/// A time in whole milliseconds. A longer time than fits becomes the longest one that fits.
pub(crate) fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(time.subsec_millis().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Return;
    use alloc::vec::Vec;

    fn body(error: impl TaskError) -> Vec<u8> {
        let mut e = Encoder::new();
        assert!(!Err::<(), _>(error).encode_return(&mut e));
        e.into_bytes()
    }

    #[test]
    fn errors_are_texts_or_wishes() {
        assert_eq!(body("no"), b"\x62no");
        assert_eq!(body(String::from("no")), b"\x62no");
        let retry = Retry::after(Duration::from_micros(2_500_900)).because("no");
        assert_eq!(body(retry.clone()), b"\x82\x62no\x19\x09\xc4");
        assert_eq!(body(Failure::from(retry)), b"\x82\x62no\x19\x09\xc4");
        assert_eq!(body(Failure::from("no")), b"\x62no");
        assert!(body(Retry::after(Duration::MAX)).ends_with(b"\x1b\x00\x00\x08\x00\x00\x00\x00\x00"));
        assert_eq!(<Result<i64, Retry> as Return>::TYPE.as_str(), "!i64");
    }
}
