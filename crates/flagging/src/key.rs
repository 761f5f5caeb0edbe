//! Keys: which columns they are, and how they are written as text.

/// The columns of a list such as `id` or `tenant,"file, name"`. A name is taken as it stands; one with a comma, a quote
/// or blanks at its ends stands in double quotes, a double quote within doubled. None where a quote is not closed, or a
/// name is empty.
pub fn split_columns(list: &str) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = list.trim();
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        if name.is_empty() {
            return None;
        }
        columns.push(name);
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(columns);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

/// A quoted name behind its opening quote, and what follows its closing one.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != '"' {
            name.push(character);
        } else if characters.next_if(|&(_, next)| next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, &quoted[at + 1..]));
        }
    }
    None
}

/// The text of a composite key, as PostgreSQL writes `ROW(a, b)::text`.
pub fn record_text(values: &[&str]) -> String {
    let mut text = String::from("(");
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        let special = |c: char| {
            matches!(
                c,
                '"' | '\\' | '(' | ')' | ',' | ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'
            )
        };
        if !value.is_empty() && !value.contains(special) {
            text.push_str(value);
            continue;
        }
        text.push('"');
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                text.push(character);
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push(')');
    text
}

/// The values of a composite key's text: what `record_text` made it of. None where it is no such text.
pub fn split_record(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut values = vec![String::new()];
    let mut quoted = false;
    let mut characters = inner.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                values.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            '\\' => values.last_mut()?.push(characters.next()?),
            ',' if !quoted => values.push(String::new()),
            _ => values.last_mut()?.push(character),
        }
    }
    (!quoted).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_are_split_at_commas_outside_quotes() {
        let split = |list| split_columns(list).unwrap_or_default();
        assert_eq!(split("id"), ["id"]);
        assert_eq!(split(" a , b "), ["a", "b"]);
        assert_eq!(split(r#""a,b",c"#), ["a,b", "c"]);
        assert_eq!(split(r#""say ""hi""""#), [r#"say "hi""#]);
        assert_eq!(split("with space"), ["with space"]);
        for wrong in ["", ",", "a,", ",a", "a,,b", r#""open"#, r#""a"b"#, r#""""#] {
            assert_eq!(split_columns(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn composite_keys_are_written_as_postgresql_writes_rows() {
        assert_eq!(record_text(&["1", "x y"]), r#"(1,"x y")"#);
        assert_eq!(record_text(&["", "a\"b\\c"]), r#"("","a""b\\c")"#);
        assert_eq!(record_text(&["ä", "(1)"]), r#"(ä,"(1)")"#);
    }

    #[test]
    fn broken_texts_of_rows_are_none() {
        for wrong in ["", "(", "1,2", "(\"open)", "(a\\"] {
            assert_eq!(split_record(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn composite_keys_come_back(values in proptest::collection::vec("[^\u{0}]{0,12}", 1..4)) {
            let texts: Vec<&str> = values.iter().map(String::as_str).collect();
            prop_assert_eq!(split_record(&record_text(&texts)), Some(values));
        }

        #[test]
        fn quoted_names_come_back(names in proptest::collection::vec("[^\u{0}]{1,12}", 1..4)) {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
            prop_assert_eq!(split_columns(&quoted.join(",")), Some(names));
        }
    }
}
