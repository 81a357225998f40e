//! Where the configuration says that list indexes are, with Dovecot's variables left in, and how it has to be
//! written instead.

use super::finding::{Remedy, write};
use super::people::field_of_userdb;
use crate::dovecot::files::Place;
use crate::dovecot::settings::{Generation, Settings};

/// Where list indexes should be.
pub const LOCAL_2_3: &str = "/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index";

pub const LOCAL_2_4: &str = "/dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index";

/// Without these, Dovecot 2.4 would have to guess.
pub const REQUIRED: [&str; 3] = ["mail_driver", "mail_path", "mailbox_list_index_prefix"];

/// These matter only if they are set.
pub const OPTIONAL: [&str; 2] = ["mail_index_path", "mailbox_list_layout"];

/// What says in Dovecot 2.3 where everything is, the first that is there.
pub const LOCATIONS: [&str; 2] = ["mail_location", "mail"];

/// The name of the namespace that holds the inbox.
pub fn inbox(settings: &Settings) -> Option<&str> {
    settings.names("namespace").into_iter().find(|name| {
        settings.is_on(&format!("namespace/{name}/inbox"))
            && !settings.is_on(&format!("namespace/{name}/disabled"))
    })
}

/// The field in which a userdb of Dovecot 2.3 returns the location of one namespace alone.
pub fn own_field(namespace: &str) -> String {
    format!("namespace/{}/location", namespace.to_ascii_lowercase())
}

/// A location in the block of the inbox's namespace, for Dovecot 2.3.
pub struct OwnLocation<'a> {
    /// The namespace's name, or its number.
    pub namespace: &'a str,
    /// With Dovecot's variables left in.
    pub location: &'a str,
}

impl<'a> OwnLocation<'a> {
    pub fn of_inbox(settings: &'a Settings) -> Option<Self> {
        let namespace = inbox(settings)?;
        let location = settings.get(&format!("namespace/{namespace}/location"));
        let is_there = settings.generation == Generation::V2_3 && !location.is_empty();
        is_there.then_some(Self {
            namespace,
            location,
        })
    }

    /// What a userdb returns it in.
    pub fn field(&self) -> String {
        own_field(&self.usable_name())
    }

    pub fn place(&self, settings: &Settings) -> Option<Place> {
        settings.place(&format!("namespace/{}/location", self.namespace))
    }

    /// Whether a field can have the namespace's name.
    pub fn has_field(&self) -> bool {
        self.usable_name() == self.namespace
    }

    fn usable_name(&self) -> String {
        match self.namespace.parse::<usize>() {
            Ok(_) => "inbox".to_owned(),
            Err(_) => usable_name(self.namespace),
        }
    }

    /// What makes every userdb return it; if the namespace has no name for a field, what gives it one.
    pub fn returned(&self, settings: &Settings) -> Option<Remedy> {
        if self.has_field() {
            return add_userdb_field(settings, &self.field(), &with_tilde(self.location));
        }
        let block = settings.place(&format!("namespace/{}", self.namespace))?;
        let line = format!("namespace {} {{", self.usable_name());
        Some(Remedy::Replace(block, line))
    }
}

/// A namespace's name as a post-login script can address it.
pub fn usable_name(namespace: &str) -> String {
    namespace.to_ascii_lowercase().replace([' ', '\\'], "")
}

/// Where all list indexes of the inbox are, with Dovecot's variables left in; empty if nowhere.
pub fn template(settings: &Settings) -> String {
    let in_inbox = |setting: &str| {
        let own = inbox(settings).map_or("", |name| {
            settings.get(&format!("namespace/{name}/{setting}"))
        });
        if own.is_empty() {
            settings.get(setting).to_owned()
        } else {
            own.to_owned()
        }
    };
    match settings.generation {
        Generation::V2_4 => in_inbox("mailbox_list_index_prefix"),
        Generation::V2_3 => {
            let given = userdb_location(settings).map(|(_, location)| location.to_owned());
            let location = match in_inbox("location") {
                own if own.is_empty() => {
                    given.unwrap_or_else(|| settings.get("mail_location").to_owned())
                }
                own => own,
            };
            list_index_of(&location).unwrap_or_default().to_owned()
        }
    }
}

/// The LISTINDEX of a location of Dovecot 2.3; colons inside `%{...}` do not end it.
pub fn list_index_of(location: &str) -> Option<&str> {
    let (_, rest) = location.rsplit_once(":LISTINDEX=")?;
    let mut depth = 0;
    let end = rest.find(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        character == ':' && depth == 0
    });
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// A location that the userdbs' own settings give to everybody, and the field.
pub fn userdb_location(settings: &Settings) -> Option<(String, &str)> {
    let mut fields: Vec<String> = inbox(settings).map(own_field).into_iter().collect();
    fields.extend(LOCATIONS.map(str::to_owned));
    settings.names("userdb").into_iter().find_map(|userdb| {
        fields.iter().find_map(|field| {
            let location = field_of_userdb(settings, userdb, field)?;
            Some((field.clone(), location))
        })
    })
}

/// `(setting, value)` of everything that becomes a userdb field.
pub fn userdb_fields(settings: &Settings) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (rest, value) in settings.below("userdb_fields") {
        fields.push((format!("userdb_fields/{rest}"), value.to_owned()));
    }
    for userdb in settings.names("userdb") {
        let key = |setting: &str| format!("userdb/{userdb}/{setting}");
        for setting in ["args", "default_fields", "override_fields"] {
            if !settings.get(&key(setting)).is_empty() {
                fields.push((key(setting), settings.get(&key(setting)).to_owned()));
            }
        }
        for (rest, value) in settings.below(&key("fields")) {
            fields.push((key(&format!("fields/{rest}")), value.to_owned()));
        }
    }
    fields
}

/// The variables of a template, each as it is written.
pub fn variables(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find('%') {
        let after = &rest[start + 1..];
        let length = if after.starts_with('%') {
            1
        } else if let Some(brace) = after.find('{').filter(|&at| {
            after[..at]
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.')
        }) {
            after[brace..]
                .find('}')
                .map_or(after.len(), |end| brace + end + 1)
        } else {
            after
                .find(|c: char| c.is_ascii_lowercase())
                .map_or(after.len(), |at| at + 1)
        };
        let end = start + 1 + length;
        if !after.starts_with('%') {
            found.push(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    found
}

/// Whether all users, those of a domain or those of a hash have the same path.
pub fn is_for_several(path: &str) -> bool {
    variables(path).into_iter().all(|variable| {
        let name = variable.trim_start_matches('%');
        match name.strip_prefix('{') {
            Some(name) => {
                name.starts_with("domain")
                    || ["domain", "% ", "%2", "%4"]
                        .iter()
                        .any(|part| name.contains(part))
            }
            None => name.ends_with('d') || name.contains(['N', 'H']),
        }
    })
}

pub fn removed(place: Place) -> Remedy {
    Remedy::Replace(place, String::new())
}

/// A setting of Dovecot 2.4 written anew where it stands, so that copies of it change too.
pub fn replaced(settings: &Settings, setting: &str, value: &str) -> Option<Remedy> {
    let copy = settings.get(&format!("userdb_fields/{setting}"));
    if settings.get(setting) == value && copy != value {
        // It was copied before it was set.
        return Some(fields_of_2_4(settings, &[setting], ("userdb_fields", "")));
    }
    let line = format!("{setting} = {value}");
    Some(match settings.place(setting) {
        Some(place) => Remedy::Replace(place, line),
        None => write(settings, line),
    })
}

/// Where Dovecot 2.4 takes userdb fields from, and what their names begin with.
pub type FieldBlock = (&'static str, &'static str);

/// What makes Dovecot 2.4 return these settings as fields, and have them. The block comes last, since `$SET:` copies
/// what is above it.
pub fn fields_of_2_4(settings: &Settings, wanted: &[&str], block: FieldBlock) -> Remedy {
    let (block, prefix) = block;
    let mut lines = String::new();
    let mut fields = String::new();
    for &field in wanted {
        let value = settings.get(field);
        let is_local = field != "mailbox_list_index_prefix" || value.starts_with('/');
        if !is_local {
            lines += &format!("{field} = {LOCAL_2_4}\n");
        } else if value.is_empty() && field == "mail_path" {
            lines += "mail_path = ~/mail\n";
        } else if with_tilde(value) != value {
            // The userdb does not know the home.
            lines += &format!("{field} = {}\n", with_tilde(value));
        }
        fields += &format!("  {prefix}{field} = $SET:{field}\n");
    }
    write(settings, format!("{lines}{block} {{\n{fields}}}"))
}

/// What gives each user a directory of his own.
pub fn one_each(settings: &Settings) -> Option<Remedy> {
    match settings.generation {
        Generation::V2_4 => replaced(settings, "mailbox_list_index_prefix", LOCAL_2_4),
        Generation::V2_3 => match userdb_location(settings) {
            Some((field, location)) => add_userdb_field(settings, &field, &local(location)),
            None => {
                let location = local(settings.get("mail_location"));
                Some(write(settings, format!("mail_location = {location}")))
            }
        },
    }
}

/// The location as the userdb has to return it.
pub fn for_userdb(settings: &Settings) -> String {
    let own = OwnLocation::of_inbox(settings).map(|own| own.location);
    let location = with_tilde(own.unwrap_or(settings.get("mail_location")));
    match list_index_of(&location) {
        // A blank would end the field, and is not in any hash of Dovecot 2.3.
        Some(list_index) if list_index.starts_with('/') && !list_index.contains(' ') => location,
        _ => local(&location),
    }
}

pub fn with_tilde(location: &str) -> String {
    let mut text = location.to_owned();
    for variable in variables(location) {
        if variable.ends_with('h') || variable.ends_with("{home}") {
            text = text.replace(variable, "~");
        }
    }
    text
}

/// Makes every userdb of Dovecot 2.3 return a field, one after the other.
pub fn add_userdb_field(settings: &Settings, field: &str, value: &str) -> Option<Remedy> {
    let blocks = settings.names("userdb");
    let name = blocks
        .iter()
        .find(|name| field_of_userdb(settings, name, field) != Some(value))?;
    let word = format!("{field}={value}");
    for setting in ["args", "override_fields", "default_fields"] {
        let key = format!("userdb/{name}/{setting}");
        let old = settings.get(&key);
        let begins = format!("{field}=");
        if old.split(' ').any(|other| other.starts_with(&begins)) {
            let words: Vec<&str> = old
                .split(' ')
                .map(|other| {
                    if other.starts_with(&begins) {
                        &word
                    } else {
                        other
                    }
                })
                .collect();
            let place = settings.place(&key)?;
            return Some(Remedy::Replace(
                place,
                format!("  {setting} = {}", words.join(" ")),
            ));
        }
    }
    let key = format!("userdb/{name}/default_fields");
    let old = settings.get(&key);
    match (
        settings.place(&key),
        settings.place(&format!("userdb/{name}")),
    ) {
        (Some(place), _) => Some(Remedy::Replace(
            place,
            format!("  default_fields = {old} {word}"),
        )),
        (None, Some(block)) => Some(Remedy::After(block, format!("  default_fields = {word}"))),
        (None, None) => None,
    }
}

pub fn local(location: &str) -> String {
    let location = without(location, "LISTINDEX=");
    format!("{location}:LISTINDEX={LOCAL_2_3}")
}

/// Without the parts that begin so.
pub fn without(location: &str, beginning: &str) -> String {
    let parts = location
        .split(':')
        .filter(|part| !part.starts_with(beginning));
    parts.collect::<Vec<_>>().join(":")
}
