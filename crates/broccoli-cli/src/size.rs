//! Sizes of memory as people write them: `64M`, `1.5G`.

/// The maximum. It is far from every overflow.
const BYTES_MAX: f64 = (1_u64 << 40) as f64;

/// Parses a size: a number and one of the units `K`, `M`, `G` (1,024, 1,024², 1,024³ bytes).
///
/// # Errors
/// If the text is not valid. The error says how to write it.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "K" => 1_u32 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "" => return Err(format!("add a unit: {text}K, {text}M or {text}G")),
        _ => return Err("write a number and one of the units K, M, G, such as 64M".into()),
    };
    let number: f64 = number.parse().map_err(|_| "write a number and a unit, such as 64M".to_owned())?;
    let bytes = number * f64::from(factor);
    if bytes > BYTES_MAX {
        return Err("at most 1024G".into());
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(parse("64K"), Ok(65_536));
        assert_eq!(parse("1.5M"), Ok(1_572_864));
        assert_eq!(parse("2G"), Ok(2_147_483_648));
        assert_eq!(parse("64"), Err("add a unit: 64K, 64M or 64G".into()));
        for bad in ["", "M", "-1M", "1.2.3M", "1 M", "1MB", "9999G"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
