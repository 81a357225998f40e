//! Ages as the administrator writes them: `7days`, `1 week`.
//!
//! The rules are Dovecot's for its own settings (`settings_get_time` in
//! `settings-parser.c`): a number, then spaces or none, then the name of a unit or
//! the beginning of one, in any case.

use std::fmt;
use std::time::Duration;

/// The units with their length in seconds. The order decides what `m` and `mi` are.
const UNITS: [(&str, u64); 7] = [
    ("secs", 1),
    ("seconds", 1),
    ("mins", 60),
    ("minutes", 60),
    ("hours", 60 * 60),
    ("days", 24 * 60 * 60),
    ("weeks", 7 * 24 * 60 * 60),
];

const MILLISECONDS: [&str; 4] = ["msecs", "mseconds", "millisecs", "milliseconds"];

/// Reads an age: a whole number of seconds below 2^32, as Dovecot keeps it.
///
/// # Errors
///
/// For everything that Dovecot does not accept as a time in seconds.
pub fn parse_age(text: &[u8]) -> Result<Duration, AgeError> {
    let error = |reason| AgeError {
        text: text.to_vec(),
        reason,
    };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = std::str::from_utf8(number)
        .ok()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| error("it must begin with a number"))?;
    let spaces = unit.iter().take_while(|&&byte| byte == b' ').count();
    let unit = &unit[spaces..];
    if unit.is_empty() {
        return match number {
            0 => Ok(Duration::ZERO),
            _ => Err(error("the unit is missing (7days, for example)")),
        };
    }
    let is_short_for = |name: &str| {
        name.as_bytes()
            .get(..unit.len())
            .is_some_and(|beginning| beginning.eq_ignore_ascii_case(unit))
    };
    let seconds = if let Some((_, length)) = UNITS.iter().find(|(name, _)| is_short_for(name)) {
        number.checked_mul(*length)
    } else if !MILLISECONDS.into_iter().any(is_short_for) {
        return Err(error(
            "the unit must be secs, mins, hours, days or weeks, whole or shortened",
        ));
    } else if number % 1000 == 0 {
        Some(number / 1000)
    } else {
        return Err(error("only whole seconds are supported"));
    };
    seconds
        .filter(|&seconds| seconds <= u64::from(u32::MAX))
        .map(Duration::from_secs)
        .ok_or_else(|| error("it is too large (49710 days is the most)"))
}

/// A text that is no age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgeError {
    text: Vec<u8>,
    reason: &'static str,
}

impl std::error::Error for AgeError {}

impl fmt::Display for AgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a time: {}",
            self.text.escape_ascii(),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::parse_age;

    fn seconds(text: &str) -> Result<u64, &'static str> {
        parse_age(text.as_bytes())
            .map(|age| age.as_secs())
            .map_err(|error| error.reason)
    }

    #[test]
    fn a_unit_may_be_cut_anywhere_and_written_in_any_case() {
        assert_eq!(seconds("7days"), Ok(604_800));
        assert_eq!(seconds("1 week"), Ok(604_800));
        assert_eq!(seconds("2H"), Ok(7200));
        assert_eq!(seconds("90   s"), Ok(90));
        assert_eq!(seconds("5000msecs"), Ok(5));
    }

    #[test]
    fn minutes_come_before_milliseconds() {
        assert_eq!(seconds("1m"), Ok(60));
        assert_eq!(seconds("1mi"), Ok(60));
        assert_eq!(seconds("1000mil"), Ok(1));
    }

    #[test]
    fn only_zero_needs_no_unit() {
        assert_eq!(seconds("0"), Ok(0));
        assert_eq!(
            seconds("7"),
            Err("the unit is missing (7days, for example)")
        );
    }

    #[test]
    fn whatever_dovecot_refuses_is_refused_with_its_reason() {
        assert_eq!(seconds(""), Err("it must begin with a number"));
        assert_eq!(seconds("-1 day"), Err("it must begin with a number"));
        assert_eq!(
            seconds("1 fortnight"),
            Err("the unit must be secs, mins, hours, days or weeks, whole or shortened")
        );
        assert_eq!(
            seconds("1day "),
            Err("the unit must be secs, mins, hours, days or weeks, whole or shortened")
        );
        assert_eq!(
            seconds("1500msecs"),
            Err("only whole seconds are supported")
        );
        assert_eq!(seconds("4294967295s"), Ok(4_294_967_295));
        assert_eq!(
            seconds("4294967296s"),
            Err("it is too large (49710 days is the most)")
        );
        assert_eq!(
            seconds("18446744073709551615weeks"),
            Err("it is too large (49710 days is the most)")
        );
    }
}
