//! The %variables of Dovecot 2.3's settings.
//!
//! The rules are those of Dovecot's `var-expand.c`, `var-expand-if.c` and of the
//! tables of variables in `mail-user.c` and `mail-storage-service.c`.
//!
//! Dovecot trusts its configuration file with memory and time. This does not:
//! lengths, depths and the work for hashes are bounded, far above what any
//! path needs.

use std::fmt;

use super::hash;
use crate::system::regex;

/// Longest template in bytes.
const MAX_TEMPLATE: usize = 64 << 10;
/// Longest text that anything may expand to, in bytes. A path has 4096 at most.
const MAX_LENGTH: usize = 1 << 20;
/// How deep `%{if}` and hashes may be inside each other.
const MAX_DEPTH: usize = 32;
/// How many bytes may be hashed or modified for one template: under two seconds.
const MAX_WORK: u64 = 256 << 20;
/// Dovecot's limit; the eleventh is taken for the variable.
const MAX_MODIFIERS: usize = 10;

/// The setting whose template is expanded: not all know the same variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `mail_location`
    MailLocation,
    /// `mail_home`, which cannot use the home
    MailHome,
}

/// What the %variables stand for.
///
/// `None` means that the value is not known here, which is an error where the
/// template asks for it; what Dovecot knows to be empty is `Some(b"")`.
pub struct Variables<'a> {
    /// `%u`: the user name, after all of Dovecot's changes to it
    pub user: &'a [u8],
    /// `%h`: the home directory; `None` if the user has none
    pub home: Option<&'a [u8]>,
    /// `%{auth_user}`: who logged in, if that was somebody else (a master user)
    pub auth_user: Option<&'a [u8]>,
    /// `%i`: the user's numerical uid
    pub uid: Option<u32>,
    /// `%{gid}`: the user's numerical gid
    pub gid: Option<u32>,
    /// `%s`: `imap`, `pop3`, `lmtp`, `doveadm`...
    pub service: Option<&'a [u8]>,
    /// `%l`: the server's address
    pub local_ip: Option<&'a [u8]>,
    /// `%r`: the client's address
    pub remote_ip: Option<&'a [u8]>,
    /// `%{session}`
    pub session: Option<&'a [u8]>,
    /// `%p`: the process that uses the mailbox
    pub pid: Option<u32>,
    /// Values that are looked up only when a template asks for them
    pub lookup: &'a dyn Lookup,
}

/// Values that cost something to know.
pub trait Lookup {
    /// `%{hostname}` in `mail_location`: the name with its domain.
    fn host_domain(&self) -> Option<Vec<u8>>;
    /// `%{hostname}` in `mail_home`: the name alone.
    fn host_name(&self) -> Option<Vec<u8>>;
    /// `%{env:name}` in the process that uses the mailbox; empty if it is not set there.
    fn environment(&self, name: &[u8]) -> Option<Vec<u8>>;
    /// `%{userdb:field}`.
    fn userdb(&self, field: &[u8]) -> Option<UserdbField>;
}

/// The outcome of looking at the userdb's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserdbField {
    /// The field's value
    Value(Vec<u8>),
    /// The userdb did not return the field
    Absent,
}

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
        match self.table(name.as_bytes())? {
            Some(value) => Ok(Text::known(value)),
            None => Ok(Text::unknown(&[key])),
        }
    }

    fn long(&mut self, key: &[u8], depth: usize) -> Result<Text, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        if let Some(value) = self.table(key)? {
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

    /// The variables with fixed names.
    fn table(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ExpandError> {
        let variables = self.variables;
        let bytes = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        let number = |value: Option<u32>| value.map(|number| number.to_string().into_bytes());
        let mail_home = self.setting == Setting::MailHome;
        let auth_user = variables.auth_user.unwrap_or(variables.user);
        let value = match name {
            b"user" => bytes(Some(variables.user)),
            b"username" => bytes(Some(local_part(variables.user))),
            b"domain" => bytes(Some(domain(variables.user))),
            b"auth_user" => bytes(Some(auth_user)),
            b"auth_username" => bytes(Some(local_part(auth_user))),
            b"auth_domain" => bytes(Some(domain(auth_user))),
            b"home" if mail_home => return Ok(None),
            b"home" => bytes(Some(variables.home.unwrap_or_default())),
            b"service" => bytes(variables.service),
            b"lip" | b"local_ip" => bytes(variables.local_ip),
            b"rip" | b"remote_ip" => bytes(variables.remote_ip),
            b"session" => bytes(variables.session),
            b"pid" => number(variables.pid),
            b"uid" => number(variables.uid),
            b"gid" => number(variables.gid),
            b"hostname" if mail_home => variables.lookup.host_name(),
            b"hostname" => variables.lookup.host_domain(),
            _ => return Ok(None),
        };
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(ExpandError::NotKnown(name.to_vec())),
        }
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

/// What stands between the `%` and the variable.
struct Field {
    offset: i32,
    width: i32,
    zero_padding: bool,
    modifiers: Vec<Modifier>,
}

impl Field {
    /// Reads `[-][0][offset.][0][-][width][modifiers]`, and returns what follows.
    fn parse(text: &[u8]) -> (Self, &[u8]) {
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
    fn append(&self, value: &[u8], result: &mut Vec<u8>) -> Result<(), ExpandError> {
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
enum Modifier {
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
    fn new(key: u8) -> Option<Self> {
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

    fn apply(self, mut value: Vec<u8>, field: &mut Field) -> Result<Vec<u8>, ExpandError> {
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

/// Splits the parameters of `%{if;...}` at semicolons outside of inner
/// variables. A colon out there ends them.
fn split_parameters(text: &[u8]) -> Vec<Vec<u8>> {
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

fn compare(left: &[u8], operator: &[u8], right: &[u8]) -> Result<bool, ExpandError> {
    let integers = || -> Result<(i64, i64), ExpandError> {
        let integer = |text: &[u8]| {
            signed_number(text)
                .ok_or_else(|| ExpandError::If(format!("{} is not a number", text.escape_ascii())))
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
                operator.escape_ascii()
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

/// Decimal digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
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

fn split_at_first(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == separator) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn local_part(user: &[u8]) -> &[u8] {
    split_at_first(user, b'@').0
}

fn domain(user: &[u8]) -> &[u8] {
    split_at_first(user, b'@').1.unwrap_or_default()
}

fn check_length(length: usize) -> Result<(), ExpandError> {
    if length > MAX_LENGTH {
        return Err(ExpandError::TooLong);
    }
    Ok(())
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
            Self::UnknownVariable(name) => write!(f, "unknown variable %{}", name.escape_ascii()),
            Self::NotKnown(name) => write!(
                f,
                "the value of the variable %{{{}}} is not known here",
                name.escape_ascii()
            ),
            Self::NoHome => write!(f, "%h is used, but the user has no home directory"),
            Self::HashCase(name) => write!(
                f,
                "%{{{}}}: names of hashes are lower case",
                name.escape_ascii()
            ),
            Self::HashOption(option) => write!(
                f,
                "a hash's option has a wrong value: {}",
                option.escape_ascii()
            ),
            Self::If(reason) => write!(f, "%{{if}}: {reason}"),
            Self::TooLong => f.write_str("it is too long, or would become so"),
            Self::TooDeep => write!(f, "variables are nested more than {MAX_DEPTH} times"),
            Self::TooMuchWork => write!(f, "expanding it would take too long"),
            Self::Nul => write!(f, "the result has a NUL byte"),
        }
    }
}
