//! Quantities as a person writes them: a number with a unit.

/// A number with one of these units behind it.
fn quantity(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..at].trim(), text[at..].trim());
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
    let value = number.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    match (value, factor) {
        (Some(value), Some(factor)) => Ok(value * factor),
        _ => {
            let known: Vec<&str> = units.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            Err(format!("give a number with a unit: {}", known.join(", ")))
        }
    }
}

/// Bytes of a text like `100MB` or `1.5 GiB`.
///
/// # Errors
/// Names the units.
pub fn size(text: &str) -> Result<f64, String> {
    quantity(
        text,
        &[
            ("B", 1.0),
            ("kB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
        ],
    )
}

/// Seconds of a text like `10ms`.
///
/// # Errors
/// Names the units.
pub fn time(text: &str) -> Result<f64, String> {
    quantity(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])
}

/// Points of a text like `0.5`.
///
/// # Errors
/// When it is no number.
pub fn points(text: &str) -> Result<f64, String> {
    quantity(text, &[("", 1.0)]).map_err(|_| "give a number of points, as in 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::{points, size, time};

    #[test]
    fn limits_have_units() {
        let close =
            |found: Result<f64, String>, expected: f64| assert!((found.unwrap() / expected - 1.0).abs() < 1e-12);
        close(size("100MB"), 1e8);
        close(size("1.5 GiB"), 1.5 * 1_073_741_824.0);
        close(size("64kb"), 64e3);
        close(time("10ms"), 0.01);
        close(time("2 s"), 2.0);
        assert_eq!((points("0.5"), points("0")), (Ok(0.5), Ok(0.0)));
        for wrong in ["100", "MB", "-1MB", "1XB", "infMB", ""] {
            assert!(size(wrong).unwrap_err().contains("kB, MB, GB"), "{wrong}");
        }
        assert!(time("10").is_err() && points("0.5%").is_err());
    }
}
