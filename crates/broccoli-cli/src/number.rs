//! Whole numbers in a range.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Parses a whole number in a range. The error names the range.
pub(crate) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_the_range_is_told_the_range() {
        let read = within(1..=64_u16);
        assert_eq!((read("1"), read("64")), (Ok(1), Ok(64)));
        for text in ["0", "65", "-1", "x", "", "1.5", "99999999"] {
            assert_eq!(read(text), Err("expected a whole number from 1 to 64".into()), "{text:?}");
        }
    }
}
