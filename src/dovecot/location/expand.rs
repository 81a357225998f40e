//! The %variables of Dovecot 2.3's settings.
//!
//! The rules are those of Dovecot's `var-expand.c`, `var-expand-if.c` and of the
//! tables of variables in `mail-user.c` and `mail-storage-service.c`.
//!
//! Dovecot trusts its configuration file with memory and time. This does not:
//! lengths, depths and the work for hashes are bounded, far above what any
//! path needs.

use std::fmt;

use super::condition::{compare, split_parameters};
use super::field::{Field, Modifier, check_length, number};
use super::variables::{Setting, UserdbField, Variables};
use super::{Shown, hash};

/// Longest template in bytes.
const MAX_TEMPLATE: usize = 64 << 10;
/// How deep `%{if}` and hashes may be inside each other.
const MAX_DEPTH: usize = 32;
/// How many bytes may be hashed or modified for one template: about a second.
const MAX_WORK: u64 = 256 << 20;
/// Replaces the %variables of `template`.
///
/// # Errors
///
/// Where Dovecot refuses the template, where a value is not known, and where
/// the result would be unreasonably large or costly.
pub fn expand(
    template: &[u8],
    setting: Setting,
    variables: &Variables,
) -> Result<Vec<u8>, ExpandError> {
    if template.len() > MAX_TEMPLATE {
        return Err(ExpandError::TooLong);
    }
    if setting == Setting::MailLocation && variables.home.is_none() && uses_home(template) {
        return Err(ExpandError::NoHome);
    }
    let mut expander = Expander {
        setting,
        variables,
        work: 0,
    };
    let text = expander.text(template, 0)?;
    match text.unknown {
        Some(error) => Err(error),
        None if text.value.contains(&0) => Err(ExpandError::Nul),
        None => Ok(text.value),
    }
}

/// Dovecot's question whether a template has `%h` or `%{home}`. It does not look
/// into longer variables: a home in one of those may be empty.
fn uses_home(template: &[u8]) -> bool {
    let mut rest = template;
    while let Some(percent) = rest.iter().position(|&byte| byte == b'%') {
        rest = &rest[percent + 1..];
        let skip = |bytes: &[u8], wanted: fn(u8) -> bool| {
            bytes.iter().take_while(|&&byte| wanted(byte)).count()
        };
        let number = |byte: u8| byte.is_ascii_digit() || byte == b'-';
        let mut at = skip(rest, number);
        if rest.get(at) == Some(&b'.') {
            at += 1;
            at += skip(&rest[at..], number);
        }
        at += skip(&rest[at..], |byte| Modifier::new(byte).is_some());
        match rest.get(at) {
            Some(b'h') => return true,
            Some(b'{') => {
                let name = &rest[at + 1..];
                if let Some(end) = name.iter().position(|&byte| byte == b'}') {
                    if &name[..end] == b"home" {
                        return true;
                    }
                    rest = &name[end + 1..];
                    continue;
                }
            }
            _ => {}
        }
        // Dovecot goes on with the byte behind the first one.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Expanded text. A variable that Dovecot does not know leaves a mark in the
/// text and an error; a hash's salt goes on in spite of it.
#[derive(Default)]
struct Text {
    value: Vec<u8>,
    unknown: Option<ExpandError>,
}

impl Text {
    fn known(value: Vec<u8>) -> Self {
        Self {
            value,
            unknown: None,
        }
    }

    fn unknown(name: &[u8]) -> Self {
        Self {
            value: [b"UNSUPPORTED_VARIABLE_", name].concat(),
            unknown: Some(ExpandError::UnknownVariable(name.to_vec())),
        }
    }
}

struct Expander<'a> {
    setting: Setting,
    variables: &'a Variables<'a>,
    work: u64,
}

impl Expander<'_> {
    fn text(&mut self, template: &[u8], depth: usize) -> Result<Text, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let mut result = Text::default();
        let mut rest = template;
        while let Some(percent) = rest.iter().position(|&byte| byte == b'%') {
            result.value.extend_from_slice(&rest[..percent]);
            let (mut field, behind) = Field::parse(&rest[percent + 1..]);
            let Some((&first, behind)) = behind.split_first() else {
                // A template that ends within a variable loses that end.
                rest = &[];
                break;
            };
            let variable = if first == b'{' && behind.contains(&b'}') {
                // Without the right brace Dovecot takes everything up to the end.
                let end = closing_brace(behind).unwrap_or(behind.len());
                rest = behind.get(end + 1..).unwrap_or_default();
                self.long(&behind[..end], depth)?
            } else {
                rest = behind;
                self.short(first)?
            };
            match variable.unknown {
                None => {
                    let mut value = variable.value;
                    for modifier in std::mem::take(&mut field.modifiers) {
                        value = modifier.apply(value, &mut field)?;
                        check_length(value.len())?;
                        self.spend(value.len() as u64)?;
                    }
                    self.spend(value.len() as u64)?;
                    field.append(&value, &mut result.value)?;
                }
                Some(error) => {
                    result.value.extend_from_slice(&variable.value);
                    result.unknown.get_or_insert(error);
                }
            }
            check_length(result.value.len())?;
        }
        result.value.extend_from_slice(rest);
        check_length(result.value.len())?;
        Ok(result)
    }

    /// Counts what has been done for the template.
    fn spend(&mut self, bytes: u64) -> Result<(), ExpandError> {
        self.work = self.work.saturating_add(bytes);
        if self.work > MAX_WORK {
            return Err(ExpandError::TooMuchWork);
        }
        Ok(())
    }

    fn short(&self, key: u8) -> Result<Text, ExpandError> {
        let name = match key {
            b'u' => "user",
            b'n' => "username",
            b'd' => "domain",
            b's' => "service",
            b'h' => "home",
            b'l' => "lip",
            b'r' => "rip",
            b'p' => "pid",
            b'i' => "uid",
            b'%' => return Ok(Text::known(b"%".to_vec())),
            _ => return Ok(Text::unknown(&[key])),
        };
        match self.variables.value(name.as_bytes(), self.setting)? {
            Some(value) => Ok(Text::known(value)),
            None => Ok(Text::unknown(&[key])),
        }
    }

    fn long(&mut self, key: &[u8], depth: usize) -> Result<Text, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        if let Some(value) = self.variables.value(key, self.setting)? {
            return Ok(Text::known(value));
        }
        let (key, data) = split_at_first(key, b':');
        let data = data.unwrap_or_default();
        let function = split_at_first(key, b';').0;
        if hash::Method::is_name(function) || function.eq_ignore_ascii_case(b"pkcs5") {
            return self.hash(key, data, depth);
        }
        if function.eq_ignore_ascii_case(b"if") {
            return self.condition(key, data, depth);
        }
        let value = match key {
            b"env" => self.variables.lookup.environment(data),
            b"userdb" => {
                let (field, default) = split_at_first(data, b':');
                self.variables
                    .lookup
                    .userdb(field)
                    .map(|found| match found {
                        UserdbField::Value(value) => value,
                        UserdbField::Absent => default.unwrap_or_default().to_vec(),
                    })
            }
            _ => return Ok(Text::unknown(key)),
        };
        let value = value.ok_or_else(|| ExpandError::NotKnown([key, b":", data].concat()))?;
        Ok(Text::known(value))
    }

    /// `%{algorithm;options:variable}`
    fn hash(&mut self, key: &[u8], variable: &[u8], depth: usize) -> Result<Text, ExpandError> {
        let (algorithm, arguments) = split_at_first(key, b';');
        let pkcs5 = algorithm == b"pkcs5";
        let lookup: &[u8] = if pkcs5 { b"sha256" } else { algorithm };
        let Some(method) = hash::Method::find(lookup) else {
            return Ok(Text {
                value: Vec::new(),
                unknown: Some(ExpandError::HashCase(algorithm.to_vec())),
            });
        };
        let value = self.long(variable, depth + 1)?;
        if value.unknown.is_some() {
            return Ok(Text {
                value: Vec::new(),
                unknown: value.unknown,
            });
        }
        let value = value.value;
        check_length(value.len())?;

        let mut options = HashOptions {
            rounds: if pkcs5 { 2048 } else { 1 },
            salt: if pkcs5 { variable.to_vec() } else { Vec::new() },
            truncate: 0,
            base64: false,
        };
        if let Some(arguments) = arguments {
            self.hash_options(arguments, &mut options, depth)?;
        }

        let input = (value.len() + options.salt.len()).max(method.size + options.salt.len());
        let cost = if pkcs5 {
            hash::PBKDF2_COST
        } else {
            input as u64 + 128
        };
        self.spend(cost.saturating_mul(u64::from(options.rounds)))?;
        let mut digest = if pkcs5 {
            hash::pbkdf2(&value, &options.salt, options.rounds)
        } else {
            method.rounds(&value, &options.salt, options.rounds)
        };
        let bits = usize::try_from(options.truncate).unwrap_or(usize::MAX);
        if bits > 0 {
            hash::truncate(&mut digest, bits.min(method.size * 8));
        }
        Ok(Text::known(if options.base64 {
            hash::base64(&digest)
        } else {
            hash::hex(&digest)
        }))
    }

    fn hash_options(
        &mut self,
        arguments: &[u8],
        options: &mut HashOptions,
        depth: usize,
    ) -> Result<(), ExpandError> {
        for argument in arguments.split(|&byte| byte == b',') {
            let (name, value) = split_at_first(argument, b'=');
            let Some(value) = value else { continue };
            let wrong = || ExpandError::HashOption(argument.to_vec());
            let number = || number(value).and_then(|number| u32::try_from(number).ok());
            match name {
                b"rounds" => {
                    options.rounds = number().filter(|&rounds| rounds > 0).ok_or_else(wrong)?;
                }
                b"truncate" => options.truncate = number().ok_or_else(wrong)?,
                b"salt" => {
                    // What Dovecot does not know becomes part of the salt, and
                    // options behind the salt are not looked at.
                    options.salt = self.text(value, depth + 1)?.value;
                    return Ok(());
                }
                b"format" => {
                    options.base64 = match value {
                        b"base64" => true,
                        // Dovecot writes lower-case digits for both.
                        b"hex" | b"hexuc" => false,
                        _ => return Err(wrong()),
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `%{if;left;operator;right;then;else}`
    fn condition(&mut self, key: &[u8], data: &[u8], depth: usize) -> Result<Text, ExpandError> {
        let input = [key, b":", data].concat();
        let Some(parameters) = split_at_first(&input, b';').1 else {
            return Err(ExpandError::If("it has no parameters".into()));
        };
        let mut parameters = split_parameters(parameters);
        if parameters.len() == 4 {
            parameters.push(Vec::new());
        }
        let Ok(parameters) = <[Vec<u8>; 5]>::try_from(parameters) else {
            return Err(ExpandError::If("it needs four or five parameters".into()));
        };
        let mut expanded: [Vec<u8>; 5] = Default::default();
        for (parameter, result) in parameters.iter().zip(&mut expanded) {
            let text = self.text(parameter, depth + 1)?;
            if text.unknown.is_some() {
                return Ok(Text {
                    value: Vec::new(),
                    unknown: text.unknown,
                });
            }
            *result = text.value;
        }
        let [left, operator, right, then, otherwise] = expanded;
        let holds = compare(&left, &operator, &right)?;
        Ok(Text::known(if holds { then } else { otherwise }))
    }
}

struct HashOptions {
    rounds: u32,
    salt: Vec<u8>,
    truncate: u32,
    base64: bool,
}

/// Where the brace that was opened before `text` is closed.
fn closing_brace(text: &[u8]) -> Option<usize> {
    let mut depth = 1_usize;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

pub(super) fn split_at_first(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == separator) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Why a template cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpandError {
    /// Dovecot does not know the variable either
    UnknownVariable(Vec<u8>),
    /// Dovecot would know the value, but it is not known here
    NotKnown(Vec<u8>),
    /// The template uses the home directory, and the user has none
    NoHome,
    /// An algorithm's name in upper case
    HashCase(Vec<u8>),
    /// A hash's option has a value that Dovecot refuses
    HashOption(Vec<u8>),
    /// A `%{if;...}` that Dovecot refuses
    If(String),
    /// The template or a result is too long
    TooLong,
    /// Variables are inside each other too often
    TooDeep,
    /// Hashing or modifying would take too long
    TooMuchWork,
    /// A path cannot have a NUL byte
    Nul,
}

impl std::error::Error for ExpandError {}

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariable(name) => write!(f, "unknown variable %{}", Shown(name)),
            Self::NotKnown(name) => write!(
                f,
                "the value of the variable %{{{}}} is not known here",
                Shown(name)
            ),
            Self::NoHome => write!(f, "%h is used, but the user has no home directory"),
            Self::HashCase(name) => {
                write!(f, "%{{{}}}: names of hashes are lower case", Shown(name))
            }
            Self::HashOption(option) => {
                write!(f, "a hash's option has a wrong value: {}", Shown(option))
            }
            Self::If(reason) => write!(f, "%{{if}}: {reason}"),
            Self::TooLong => f.write_str("it is too long, or would become so"),
            Self::TooDeep => write!(f, "variables are nested more than {MAX_DEPTH} times"),
            Self::TooMuchWork => write!(f, "expanding it would take too long"),
            Self::Nul => write!(f, "the result has a NUL byte"),
        }
    }
}
