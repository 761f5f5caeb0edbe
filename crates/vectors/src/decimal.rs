//! Numbers as PostgreSQL spells `float4`.
use std::fmt::Write;

/// Digits of a decimal number: at most nine with their point, sign and exponent, as `{:e}` writes them.
#[derive(Default)]
struct Scientific {
    bytes: [u8; 24],
    length: usize,
}

impl Write for Scientific {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = self.length + part.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Scientific {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

/// Appends `value` as PostgreSQL's `float4out` does with `extra_float_digits` > 0: shortest digits that read back,
/// fixed notation for exponents from −4 to 5, else an exponent of at least two digits with its sign.
pub(crate) fn format_float(value: f32, out: &mut String) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_sign_negative() {
        out.push('-');
    }
    let value = value.abs();
    if value.is_infinite() {
        return out.push_str("Infinity");
    }
    if value == 0.0 {
        return out.push('0');
    }
    let mut shortest = Scientific::default();
    // Writing cannot fail: nine digits, a point and an exponent take at most 15 bytes.
    let _ = write!(shortest, "{value:e}");
    // Where two shortest decimals are equally near, PostgreSQL takes the one that ends in an even digit.
    let digits = shortest.as_str().split('e').next().unwrap_or_default();
    if digits.bytes().last().is_some_and(|digit| digit % 2 == 1) && digits.len() > 2 {
        let mut even = Scientific::default();
        let _ = write!(even, "{value:.*e}", digits.len() - 2);
        if even.as_str().parse() == Ok(value) {
            shortest = even;
        }
    }
    // PostgreSQL never prints a number that lies exactly between two floats, because readers round those differently.
    // Below 2²⁴ such numbers have more digits than are ever needed.
    if value >= 16_777_216.0 && is_midpoint(shortest.as_str(), value) {
        for decimals in 1..=8 {
            let mut longer = Scientific::default();
            let _ = write!(longer, "{value:.decimals$e}");
            if longer.as_str().parse() == Ok(value) && !is_midpoint(longer.as_str(), value) {
                shortest = longer;
                break;
            }
        }
    }
    let (mantissa, exponent) = shortest.as_str().split_once('e').unwrap_or((shortest.as_str(), "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (first, others) = mantissa.split_at(1);
    let others = others.trim_start_matches('.').trim_end_matches('0');
    match exponent {
        -4..=-1 => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
            out.push_str(first);
            out.push_str(others);
        }
        0..=5 => {
            out.push_str(first);
            let whole = exponent as usize;
            out.push_str(&others[..whole.min(others.len())]);
            out.extend(std::iter::repeat_n('0', whole.saturating_sub(others.len())));
            if others.len() > whole {
                out.push('.');
                out.push_str(&others[whole..]);
            }
        }
        _ => {
            out.push_str(first);
            if !others.is_empty() {
                out.push('.');
                out.push_str(others);
            }
            let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        }
    }
}

/// Whether `decimal` lies exactly between `value` and one of its neighbours.
fn is_midpoint(decimal: &str, value: f32) -> bool {
    let Ok(decimal) = decimal.parse::<f64>() else {
        return false;
    };
    [value.next_down(), value.next_up()]
        .iter()
        .any(|&other| decimal == (f64::from(value) + f64::from(other)) / 2.0)
}
