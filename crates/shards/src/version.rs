//! Versions of the extension.

/// Whether version `a` comes before version `b`: numbers with dots between, compared one by one. What is no number
/// counts as 0.
#[must_use]
pub fn is_older(a: &str, b: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        numbers
    };
    numbers(a) < numbers(b)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(is_older("0.2.0", "0.3.0") && is_older("0.9.0", "0.10.0") && is_older("0.3", "0.3.1"));
        assert!(!is_older("0.3.0", "0.3.0") && !is_older("1.0", "0.9.9") && !is_older("0.3.0", "0.3"));
    }
}
