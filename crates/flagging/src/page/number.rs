//! Numbers as a reader takes them in at a glance.

/// 1234567 as 1,234,567.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 30000 as 30k, 1500000 as 1.5M: what fits beside an axis on a telephone, too.
pub fn short(number: i64) -> String {
    let in_units = |unit: i64, letter: &str| match (number / unit, number % unit * 10 / unit) {
        (whole, 0) => format!("{whole}{letter}"),
        (whole, tenths) => format!("{whole}.{}{letter}", tenths.abs()),
    };
    match number.abs() {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => in_units(1_000, "k"),
        1_000_000..1_000_000_000 => in_units(1_000_000, "M"),
        _ => in_units(1_000_000_000, "G"),
    }
}

/// The next number with one digit that is not zero, at least 2 and even.
pub fn round_up(most: i64) -> i64 {
    let mut unit = 1;
    while most / unit >= 10 {
        unit *= 10;
    }
    let rounded = most.div_euclid(unit) * unit + if most % unit == 0 { 0 } else { unit };
    (rounded + rounded % 2).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_axes_end_on_round_ones() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(-12345)],
            ["0", "999", "1,000", "-12,345"]
        );
        assert_eq!(
            [round_up(0), round_up(7), round_up(11), round_up(999), round_up(1000)],
            [2, 8, 20, 1000, 1000]
        );
        assert_eq!(
            [short(0), short(999), short(1500), short(30_000), short(2_500_000)],
            ["0", "999", "1.5k", "30k", "2.5M"]
        );
    }
}
