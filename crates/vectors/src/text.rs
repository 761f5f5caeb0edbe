//! The text format, `[1,2.5,-3e-05]`, with numbers spelt as PostgreSQL spells `float4`.
use crate::decimal::format_float;
use crate::{Element, Error};

/// The longest part of a refused text that its error repeats, in bytes.
const QUOTED: usize = 200;

/// Reads a vector. White space may stand around brackets, commas and numbers.
pub fn parse_text<E: Element>(text: &[u8]) -> Result<Vec<E>, Error> {
    let type_name = E::TYPE_NAME;
    let syntax = |detail| Error::Syntax {
        type_name,
        text: quote(text),
        detail,
    };

    let Some(mut rest) = skip_space(text).strip_prefix(b"[") else {
        return Err(syntax(Some("Vector contents must start with \"[\".")));
    };
    if skip_space(rest).starts_with(b"]") {
        return Err(Error::NoDimensions { type_name });
    }
    let mut elements = Vec::new();
    loop {
        if elements.len() == crate::MAX_DIMENSIONS {
            return Err(Error::TooManyDimensions { type_name });
        }
        rest = skip_space(rest);
        let end = rest
            .iter()
            .position(|&c| c == b',' || c == b']' || is_space(c))
            .ok_or_else(|| syntax(None))?;
        let (number, after) = rest.split_at(end);
        elements.push(parse_number(number).ok_or_else(|| syntax(None))??);
        rest = skip_space(after);
        match rest {
            [b',', after @ ..] => rest = after,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            _ => return Err(syntax(None)),
        }
    }
    if !skip_space(rest).is_empty() {
        return Err(syntax(Some("Junk after closing right brace.")));
    }
    Ok(elements)
}

/// A number as `strtof` reads decimal ones, or `None` when it is none.
fn parse_number<E: Element>(number: &[u8]) -> Option<Result<E, Error>> {
    let text = std::str::from_utf8(number).ok()?;
    let value: f32 = text.parse().ok()?;
    // "1e39" reads as infinite although it does not say so.
    if value.is_infinite() && text.bytes().any(|c| c.is_ascii_digit()) {
        return Some(Err(Error::OutOfRange {
            type_name: E::TYPE_NAME,
            value: quote(number),
        }));
    }
    Some(match crate::from_f32(value) {
        Err(Error::OutOfRange { type_name, .. }) => Err(Error::OutOfRange {
            type_name,
            value: quote(number),
        }),
        other => other,
    })
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn skip_space(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|&c| !is_space(c)).unwrap_or(text.len())..]
}

fn quote(text: &[u8]) -> String {
    if text.len() <= QUOTED {
        String::from_utf8_lossy(text).into_owned()
    } else {
        format!(
            "{}...",
            String::from_utf8_lossy(&text[..QUOTED]).trim_end_matches('\u{fffd}')
        )
    }
}

/// Writes a vector without white space, each number with the fewest digits that read back to it.
pub fn format_text<E: Element>(elements: &[E]) -> String {
    let mut text = String::with_capacity(2 + 12 * elements.len());
    for (i, element) in elements.iter().enumerate() {
        text.push(if i == 0 { '[' } else { ',' });
        format_float(element.to_f32(), &mut text);
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    fn spelt(value: f32) -> String {
        let mut text = String::new();
        format_float(value, &mut text);
        text
    }

    /// Spellings taken from PostgreSQL 15's `SELECT x::float4`; tests/test_types_text.py asks a server for many more.
    #[test]
    fn numbers_are_spelt_as_postgresql_spells_float4() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.0, "123456"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (123_456.79, "123456.79"),
            (1e20, "1e+20"),
            (f32::MAX, "3.4028235e+38"),
            (f32::MIN_POSITIVE, "1.1754944e-38"),
            (1e-45, "1e-45"),
            (1.0 / 3.0, "0.33333334"),
            (33_554_432.0, "3.3554432e+07"),
            (512_313.63, "512313.62"),
            (0.000_244_140_63, "0.00024414062"),
        ] {
            assert_eq!(spelt(value), expected);
        }
    }

    #[test]
    fn texts_that_are_no_vector_are_refused_by_cause() {
        let refused = |text: &str| parse_text::<f32>(text.as_bytes()).unwrap_err();
        for text in [
            "[", "[ ", "[,", "[,]", "[1,]", "[1", "[1,2", "[1a]", "[1,,3]", "[1, ,3]", "[1 2]", "[0x10]", "[1e]", "[é]",
        ] {
            assert_eq!(
                refused(text),
                Error::Syntax {
                    type_name: "vector",
                    text: text.into(),
                    detail: None
                },
                "{text}"
            );
        }
        assert_eq!(refused("").detail(), Some("Vector contents must start with \"[\"."));
        assert_eq!(refused("1,2").detail(), Some("Vector contents must start with \"[\"."));
        assert_eq!(refused("[1]9").detail(), Some("Junk after closing right brace."));
        assert_eq!(
            refused("[1]9").to_string(),
            "invalid input syntax for type vector: \"[1]9\""
        );
        assert_eq!(refused("[ ]"), Error::NoDimensions { type_name: "vector" });
        assert_eq!(refused("[NaN]"), Error::NotANumber { type_name: "vector" });
        assert_eq!(refused("[1,-Infinity]"), Error::Infinite { type_name: "vector" });
        assert_eq!(
            refused("[4e38,1]").to_string(),
            "\"4e38\" is out of range for type vector"
        );
        let error = parse_text::<f16>(b"[65520]").unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate()),
            ("\"65520\" is out of range for type halfvec", "22003")
        );
        assert_eq!(
            refused(&format!("[{}1]", "1,".repeat(16000))),
            Error::TooManyDimensions { type_name: "vector" }
        );
        assert!(
            refused(&format!("[{}", "9".repeat(1 << 20))).to_string().len() < 300,
            "a long text is cut"
        );
    }

    #[test]
    fn white_space_and_small_numbers_are_accepted() {
        assert_eq!(
            parse_text(b" \t[ 1 ,\n2.,\x0b.5,+3e0,1e-50 ]\r\x0c").as_deref(),
            Ok(&[1f32, 2.0, 0.5, 3.0, 0.0][..])
        );
        assert_eq!(
            parse_text::<f32>(format!("[{}1]", "1,".repeat(15999)).as_bytes())
                .unwrap()
                .len(),
            16000
        );
    }

    #[test]
    fn every_finite_f16_is_read_back() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                let text = format_text(&[half]);
                assert_eq!(parse_text::<f16>(text.as_bytes()).unwrap()[0].to_bits(), bits, "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn every_finite_f32_is_read_back(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(parse_text::<f32>(format_text(&[value]).as_bytes()).unwrap()[0].to_bits(), bits);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\], 0-9eE+\\-.naNiIf\u{e9}]{0,40}") {
            let _ = parse_text::<f32>(text.as_bytes());
            let _ = parse_text::<f16>(text.as_bytes());
        }
    }
}
