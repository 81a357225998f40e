//! `%{if;left;operator;right;then;else}`

use super::Shown;
use super::expand::ExpandError;
use crate::system::regex;

/// Splits the parameters of `%{if;...}` at semicolons outside of inner
/// variables. A colon out there ends them.
pub(super) fn split_parameters(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parameters = Vec::new();
    let mut current = Vec::new();
    let mut depth = 0_usize;
    let mut escaped = false;
    let mut percent_seen = false;
    for &byte in text {
        match byte {
            // Of several backslashes not one is left.
            b'\\' => {
                escaped = true;
                continue;
            }
            _ if escaped => escaped = false,
            b'%' => percent_seen = true,
            b'{' if percent_seen => {
                depth += 1;
                percent_seen = false;
            }
            b'}' if depth > 0 => depth -= 1,
            b';' if depth == 0 => {
                parameters.push(std::mem::take(&mut current));
                continue;
            }
            b':' if depth == 0 => break,
            _ => {}
        }
        current.push(byte);
    }
    if !current.is_empty() {
        parameters.push(current);
    }
    parameters
}

/// Tells whether `operator` holds between the two.
pub(super) fn compare(left: &[u8], operator: &[u8], right: &[u8]) -> Result<bool, ExpandError> {
    let integers = || -> Result<(i64, i64), ExpandError> {
        let integer = |text: &[u8]| {
            signed_number(text)
                .ok_or_else(|| ExpandError::If(format!("{} is not a number", Shown(text))))
        };
        Ok((integer(left)?, integer(right)?))
    };
    let matches = || {
        regex::matches(right, left)
            .map_err(|error| ExpandError::If(format!("regex failed: {error}")))
    };
    Ok(match operator {
        b"==" => integers().map(|(left, right)| left == right)?,
        b"<" => integers().map(|(left, right)| left < right)?,
        b"<=" => integers().map(|(left, right)| left <= right)?,
        b">" => integers().map(|(left, right)| left > right)?,
        b">=" => integers().map(|(left, right)| left >= right)?,
        b"!=" => integers().map(|(left, right)| left != right)?,
        b"eq" => left == right,
        b"lt" => left < right,
        b"le" => left <= right,
        b"gt" => left > right,
        b"ge" => left >= right,
        b"ne" => left != right,
        b"*" => wildcard_match(left, right),
        b"!*" => !wildcard_match(left, right),
        b"~" => matches()?,
        b"!~" => !matches()?,
        _ => {
            return Err(ExpandError::If(format!(
                "unsupported comparator '{}'",
                Shown(operator)
            )));
        }
    })
}

/// `*` stands for any bytes, `?` for one.
fn wildcard_match(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut pattern_at) = (0, 0);
    let mut retry = None;
    while at < text.len() {
        match pattern.get(pattern_at) {
            Some(b'*') => {
                pattern_at += 1;
                retry = Some((at, pattern_at));
            }
            Some(&byte) if byte == b'?' || byte == text[at] => {
                at += 1;
                pattern_at += 1;
            }
            _ => match retry {
                Some((start, behind_star)) => {
                    at = start + 1;
                    pattern_at = behind_star;
                    retry = Some((at, behind_star));
                }
                None => return false,
            },
        }
    }
    pattern[pattern_at..].iter().all(|&byte| byte == b'*')
}

fn signed_number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        let number = number.checked_mul(10)?;
        if negative {
            number.checked_sub(digit)
        } else {
            number.checked_add(digit)
        }
    })
}
