//! Dates and times as people read them.
//!
//! This module computes the calendar. It always uses UTC, so that people who compare versions see the same text.

use std::time::{SystemTime, UNIX_EPOCH};

/// Days of 400 years, after which the calendar repeats.
const DAYS_OF_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. A year that begins in March ends with its leap day.
const DAYS_BEFORE_1970: u64 = 719_468;
/// The first version that is a time: 2001-09-09. Lower versions are numbers that people chose.
const FIRST_MOMENT_MS: u64 = 1_000_000_000_000;

/// The version of a module as text: the time when it was deployed, such as `2026-11-29T23:31Z`. Other numbers stay as
/// they are. Built-in modules have `-`.
pub(crate) fn version(version: u64) -> String {
    match version {
        0 => "-".into(),
        FIRST_MOMENT_MS.. => minute(version),
        number => number.to_string(),
    }
}

/// The time of day to the millisecond, such as `2026-11-29T23:31:07.042Z`.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millisecond(since.as_millis() as u64)
}

/// Formats milliseconds since 1970 as a time.
fn millisecond(unix_ms: u64) -> String {
    let minute = minute(unix_ms);
    format!("{}:{:02}.{:03}Z", minute.trim_end_matches('Z'), unix_ms / 1_000 % 60, unix_ms % 1_000)
}

/// Formats milliseconds since 1970 as a time, to the minute.
fn minute(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    let (year, month, day) = date(minutes / 1_440);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}Z", minutes / 60 % 24, minutes % 60)
}

/// Converts days since 1970 to year, month and day of the Gregorian calendar.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_BEFORE_1970;
    let (era, day) = (day / DAYS_OF_ERA, day % DAYS_OF_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 153 days in each five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dates() {
        assert_eq!(version(1_796_000_000_123), "2026-11-30T00:53Z");
        assert_eq!((version(0), version(3)), ("-".into(), "3".into()));
        assert_eq!(millisecond(1_796_000_007_042), "2026-11-30T00:53:27.042Z");
    }

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(20_786), (2026, 11, 29));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
        // Each day is the one before or the first of the next month.
        let mut before = date(0);
        for day in 1..60_000 {
            let today = date(day);
            let follows = today == (before.0, before.1, before.2 + 1);
            let begins = today.2 == 1 && (today.1 == before.1 + 1 || today == (before.0 + 1, 1, 1));
            assert!(follows || begins, "{before:?} {today:?}");
            before = today;
        }
    }
}
