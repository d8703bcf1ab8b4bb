//! Durations as people write them: `500ms`, `30s`, `2m`, `1h`, `1d`.

use std::time::Duration;

/// The maximum. It is far from every overflow.
const SECONDS_MAX: f64 = 366.0 * 24.0 * 3600.0;

/// Parses a duration: a number and one of the units `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// If the text is not valid. The error says how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 24.0 * 3600.0,
        "" => return Err(format!("add a unit: {text}s, {text}ms, {text}m, {text}h or {text}d")),
        _ => return Err("write a number and one of the units ms, s, m, h, d, such as 30s".into()),
    };
    let number: f64 = number.parse().map_err(|_| "write a number and a unit, such as 30s".to_owned())?;
    let seconds = number * factor;
    if seconds > SECONDS_MAX {
        return Err("at most a year (366d)".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration in the format that [`parse`] reads.
pub(crate) fn print(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let ms = |text: &str| parse(text).map(|time| time.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1h"), Ok(3_600_000));
        assert_eq!(ms("1d"), Ok(86_400_000));
        assert_eq!(ms("30"), Err("add a unit: 30s, 30ms, 30m, 30h or 30d".into()));
        for bad in ["", "s", "-1s", "1.2.3s", "1 s", "1w", "9999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_printed_as_it_is_read() {
        assert_eq!(print(Duration::from_secs(30)), "30s");
        assert_eq!(print(Duration::from_millis(1_500)), "1500ms");
    }
}
