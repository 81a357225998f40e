//! Decimal numbers as other programs write them.

use std::str::FromStr;

/// A decimal number, digits only: [`str::parse`] alone would accept a sign.
pub fn decimal<T: FromStr>(digits: &[u8]) -> Option<T> {
    let is_decimal = digits.iter().all(u8::is_ascii_digit);
    is_decimal.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn a_number_is_made_of_digits_and_fits_its_type() {
        assert_eq!(decimal::<u32>(b"0042"), Some(42));
        assert_eq!(decimal::<u32>(b"4294967296"), None);
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "1e3"] {
            assert_eq!(decimal::<u64>(text.as_bytes()), None, "{text:?}");
        }
    }
}
