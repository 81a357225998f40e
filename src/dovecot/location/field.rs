//! What stands between the `%` and the variable: offset, width and modifiers.

use super::expand::ExpandError;
use super::hash;

/// Longest text that anything may expand to, in bytes. A path has 4096 at most.
const MAX_LENGTH: usize = 1 << 20;
/// Dovecot's limit; the eleventh is taken for the variable.
const MAX_MODIFIERS: usize = 10;

/// What stands between one `%` and its variable.
pub(super) struct Field {
    offset: i32,
    width: i32,
    zero_padding: bool,
    pub(super) modifiers: Vec<Modifier>,
}

impl Field {
    /// Reads `[-][0][offset.][0][-][width][modifiers]`, and returns what follows.
    pub(super) fn parse(text: &[u8]) -> (Self, &[u8]) {
        let mut reader = Reader(text);
        let negative = reader.take(b'-');
        let mut zero_padding = reader.take(b'0');
        let mut width = reader.number();
        let mut offset = 0;
        if reader.take(b'.') {
            // The sign belongs to an offset alone: without one it is ignored.
            offset = if negative {
                width.wrapping_neg()
            } else {
                width
            };
            zero_padding = reader.take(b'0');
            let negative = reader.take(b'-');
            width = reader.number();
            if negative {
                width = width.wrapping_neg();
            }
        }
        let mut modifiers = Vec::new();
        while modifiers.len() < MAX_MODIFIERS {
            let Some(modifier) = reader.0.first().copied().and_then(Modifier::new) else {
                break;
            };
            modifiers.push(modifier);
            reader.0 = &reader.0[1..];
        }
        let field = Self {
            offset,
            width,
            zero_padding,
            modifiers,
        };
        (field, reader.0)
    }

    /// Cuts or pads a modified value, and appends it to `result`.
    pub(super) fn append(&self, value: &[u8], result: &mut Vec<u8>) -> Result<(), ExpandError> {
        let distance = usize::try_from(self.offset.unsigned_abs()).unwrap_or(usize::MAX);
        let start = if self.offset < 0 {
            value.len().saturating_sub(distance)
        } else {
            distance.min(value.len())
        };
        let value = &value[start..];
        let size = usize::try_from(self.width.unsigned_abs()).unwrap_or(usize::MAX);
        if self.width == 0 {
            result.extend_from_slice(value);
        } else if self.zero_padding {
            // Padding never cuts, and a negative width never pads.
            if self.width > 0 {
                check_length(size)?;
                result.resize(result.len() + size.saturating_sub(value.len()), b'0');
            }
            result.extend_from_slice(value);
        } else if self.width > 0 {
            result.extend_from_slice(&value[..size.min(value.len())]);
        } else {
            // A negative width leaves bytes off the end; more than there are
            // wraps around in Dovecot, and leaves all of them.
            let kept = value.len().checked_sub(size).unwrap_or(value.len());
            result.extend_from_slice(&value[..kept]);
        }
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// Dovecot's numbers wrap around, in practice.
    fn number(&mut self) -> i32 {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let (number, rest) = self.0.split_at(digits.count());
        self.0 = rest;
        number.iter().fold(0_i32, |number, digit| {
            number
                .wrapping_mul(10)
                .wrapping_add(i32::from(digit - b'0'))
        })
    }
}

#[derive(Clone, Copy)]
pub(super) enum Modifier {
    LowerCase,
    UpperCase,
    Escape,
    Hexadecimal,
    Reverse,
    PjwHash,
    Md5Number,
    Md5,
    DistinguishedName,
    TrimEnd,
}

impl Modifier {
    pub(super) fn new(key: u8) -> Option<Self> {
        Some(match key {
            b'L' => Self::LowerCase,
            b'U' => Self::UpperCase,
            b'E' => Self::Escape,
            b'X' => Self::Hexadecimal,
            b'R' => Self::Reverse,
            b'H' => Self::PjwHash,
            b'N' => Self::Md5Number,
            b'M' => Self::Md5,
            b'D' => Self::DistinguishedName,
            b'T' => Self::TrimEnd,
            _ => return None,
        })
    }

    pub(super) fn apply(
        self,
        mut value: Vec<u8>,
        field: &mut Field,
    ) -> Result<Vec<u8>, ExpandError> {
        Ok(match self {
            Self::LowerCase => value.to_ascii_lowercase(),
            Self::UpperCase => value.to_ascii_uppercase(),
            Self::Escape => value
                .into_iter()
                .flat_map(|byte| {
                    let escaped = matches!(byte, b'"' | b'\\' | b'\'');
                    escaped.then_some(b'\\').into_iter().chain([byte])
                })
                .collect(),
            Self::Hexadecimal => {
                let number = number(&value).unwrap_or(0);
                format!("{number:x}").into_bytes()
            }
            Self::Reverse => {
                value.reverse();
                value
            }
            Self::PjwHash => {
                let number = hash::pjw(&value);
                // C converts a negative width to a large number, here and below.
                let modulus = std::mem::take(&mut field.width) as u32;
                let number = number.checked_rem(modulus).unwrap_or(number);
                field.padded_hexadecimal(number)?
            }
            Self::Md5Number => {
                let number = hash::md5_number(&value);
                let modulus = i64::from(std::mem::take(&mut field.width)) as u64;
                let number = number.checked_rem(modulus).unwrap_or(number);
                // Only the lower half is printed.
                field.padded_hexadecimal(number as u32)?
            }
            Self::Md5 => hash::md5_hex(&value),
            Self::DistinguishedName => value
                .split(|&byte| byte == b'.')
                .collect::<Vec<_>>()
                .join(&b",dc="[..]),
            Self::TrimEnd => {
                let blank = |byte: &u8| matches!(byte, b' ' | 9..=13);
                while value.last().is_some_and(blank) {
                    value.pop();
                }
                value
            }
        })
    }
}

impl Field {
    /// A hash's digits; the offset is used up as their least number.
    fn padded_hexadecimal(&mut self, number: u32) -> Result<Vec<u8>, ExpandError> {
        let digits = usize::try_from(std::mem::take(&mut self.offset)).unwrap_or(0);
        check_length(digits)?;
        // A format's width cannot be that large.
        let number = format!("{number:x}").into_bytes();
        let mut padded = vec![b'0'; digits.saturating_sub(number.len())];
        padded.extend_from_slice(&number);
        Ok(padded)
    }
}

/// Decimal digits and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

pub(super) fn check_length(length: usize) -> Result<(), ExpandError> {
    if length > MAX_LENGTH {
        return Err(ExpandError::TooLong);
    }
    Ok(())
}
