//! Durations as people write them.

/// Parses `250ms`, `1.5s`, `2m` or plain milliseconds.
pub fn parse_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        _ => return Err(format!("\"{text}\" is no duration: write 250ms, 1s or 2m")),
    };
    let value: f64 =
        number.parse().map_err(|_| format!("\"{text}\" is no duration: write 250ms, 1s or 2m"))?;
    let ms = value * factor;
    if ms.is_finite() && (0.0..=1e12).contains(&ms) {
        Ok(ms.round() as u64)
    } else {
        Err(format!("\"{text}\" is too long"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(parse_ms("250ms"), Ok(250));
        assert_eq!(parse_ms("250"), Ok(250));
        assert_eq!(parse_ms("1.5s"), Ok(1500));
        assert_eq!(parse_ms("2m"), Ok(120_000));
        for wrong in ["", "ms", "1h", "-1s", "1..s"] {
            assert!(parse_ms(wrong).is_err(), "{wrong}");
        }
    }
}
