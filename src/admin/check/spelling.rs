//! Locations that are spelled so that Dovecot reads them as something else, and how they were meant.

use super::finding::{Findings, Kind, Remedy};
use super::wording::{LOCAL_2_4, LOCATIONS, userdb_fields, variables};
use crate::dovecot::files::Place;
use crate::dovecot::settings::{Generation, Settings};

/// obox is in Dovecot Pro.
const DRIVERS: [&str; 6] = ["maildir", "mbox", "mdbox", "sdbox", "dbox", "obox"];

/// The keys of a location of Dovecot 2.3 that have a value, with the setting of 2.4 that took their place.
const KEYS: [(&str, &str); 13] = [
    ("LISTINDEX", "mailbox_list_index_prefix"),
    ("INDEX", "mail_index_path"),
    ("INDEXPVT", "mail_index_private_path"),
    ("INDEXCACHE", "mail_cache_path"),
    ("LAYOUT", "mailbox_list_layout"),
    ("INBOX", "mail_inbox_path"),
    ("CONTROL", "mail_control_path"),
    ("ALT", "mail_alt_path"),
    ("DIRNAME", "mailbox_directory_name"),
    // Several settings.
    ("FULLDIRNAME", ""),
    ("SUBSCRIPTIONS", "mailbox_subscriptions_filename"),
    ("MAILBOXDIR", "mailbox_root_directory_name"),
    ("VOLATILEDIR", "mail_volatile_path"),
];

/// Looks at every location in the configuration; returns whether all of them can be understood.
pub fn check(settings: &Settings, findings: &mut Findings) -> bool {
    let before = findings.number();
    match settings.generation {
        Generation::V2_3 => of_2_3(settings, findings),
        Generation::V2_4 => of_2_4(settings, findings),
    }
    findings.number() == before
}

fn of_2_3(settings: &Settings, findings: &mut Findings) {
    let mut locations: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, location: &str| locations.push((key.to_owned(), location.to_owned()));
    add("mail_location", settings.get("mail_location"));
    for setting in ["location", "mail_location"] {
        for (key, location) in settings.ending_with(setting) {
            add(key, location);
        }
    }
    for (key, fields) in userdb_fields(settings) {
        for word in fields.split(' ') {
            if let Some((field, location)) = word.split_once('=') {
                if LOCATIONS.contains(&field) || field.ends_with("/location") {
                    add(&key, location);
                }
            }
        }
    }
    for (setting, location) in locations {
        let meant = as_meant(&location);
        let place = settings.place(&setting);
        let (kind, new) = if meant != location {
            let location = location.clone();
            (Kind::LocationSpelling { setting, location }, meant)
        } else if location.split(':').any(|part| part == "LISTINDEX") {
            let parts = location.split(':').filter(|part| *part != "LISTINDEX");
            let new = parts.collect::<Vec<_>>().join(":");
            let location = location.clone();
            (Kind::NoValue { setting, location }, new)
        } else {
            continue;
        };
        let remedy = place.as_ref();
        let remedy = remedy.and_then(|place| rewritten(place, &location, &new));
        findings.add_at(kind, place, remedy);
    }
}

/// The line with another value; `None` if it has the value from somewhere else.
fn rewritten(place: &Place, old: &str, new: &str) -> Option<Remedy> {
    let line = place.text();
    line.contains(old)
        .then(|| Remedy::Replace(place.clone(), line.replace(old, new)))
}

/// A location of Dovecot 2.3 with a driver that exists, one colon before each key, and nothing around its equals
/// sign.
fn as_meant(location: &str) -> String {
    let separates = |c: char| c.is_whitespace() || ":;,".contains(c);
    let (driver, rest) = location.split_once(':').unwrap_or(("", location));
    let mut meant = String::new();
    let mut rest = if driver.is_empty() || !driver.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        location
    } else {
        let known = DRIVERS.iter().find(|known| distance(known, driver) == 1);
        let is_driver = DRIVERS.contains(&driver.to_ascii_lowercase().as_str());
        meant += known.filter(|_| !is_driver).unwrap_or(&driver);
        meant.push(':');
        rest
    };
    while let Some(at) = rest.find(separates) {
        let (before, from) = rest.split_at(at);
        meant += before;
        let after = from.trim_start_matches(separates);
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && !"_-".contains(c));
        let (word, behind) = after.split_at(end.unwrap_or(after.len()));
        let value = behind.trim_start();
        rest = if let Some(value) = value.strip_prefix('=').filter(|_| !word.is_empty()) {
            match key(word) {
                Some(key) => {
                    meant += &format!(":{key}=");
                    value.trim_start()
                }
                None => {
                    meant += &from[..from.len() - value.len()];
                    value
                }
            }
        } else if let (Some(key), Some(value)) = (exact(word), value.strip_prefix(":/")) {
            meant += &format!(":{key}=/");
            value
        } else {
            meant += &from[..from.len() - after.len()];
            after
        };
    }
    meant + rest
}

fn exact(word: &str) -> Option<&'static str> {
    let mut keys = KEYS.iter().map(|(key, _)| *key);
    keys.find(|key| key.eq_ignore_ascii_case(word))
}

/// The key that was meant.
fn key(word: &str) -> Option<&'static str> {
    exact(word).or_else(|| {
        let word = word.to_ascii_uppercase();
        // The other keys are too short to tell.
        ["LISTINDEX"]
            .into_iter()
            .find(|key| distance(key, &word) <= 2)
    })
}

/// How many letters have to be put in, left out or changed.
pub fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = number + 1;
        for (column, b) in other.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn of_2_4(settings: &Settings, findings: &mut Findings) {
    for name in [
        "mail_driver",
        "mail_path",
        "mail_index_path",
        "mailbox_list_index_prefix",
    ] {
        let common = settings.get(name);
        let others = settings.ending_with(name);
        let others = others.filter(|(_, value)| *value != common);
        for (key, value) in std::iter::once((name, common)).chain(others) {
            if let Some((kind, lines)) = slip(settings, key, name, value) {
                let place = settings.place(key);
                let remedy = place.clone().zip(lines).map(|(place, lines)| {
                    let text = place.text();
                    let indent = &text[..text.len() - text.trim_start().len()];
                    let lines: Vec<String> =
                        lines.iter().map(|line| format!("{indent}{line}")).collect();
                    Remedy::Replace(place, lines.join("\n"))
                });
                findings.add_at(kind, place, remedy);
            }
        }
    }
}

/// What is wrong with one setting of Dovecot 2.4, and the lines to write.
fn slip(
    settings: &Settings,
    key: &str,
    name: &str,
    value: &str,
) -> Option<(Kind, Option<Vec<String>>)> {
    let (setting, shown) = (key.to_owned(), value.to_owned());
    let line = |value: &str| Some(vec![format!("{name} = {value}")]);
    let is_prefix = name == "mailbox_list_index_prefix";
    let name_of_copy = value.trim_start_matches(['$', '%', '{']);
    let is_copy = value.starts_with('$') || name_of_copy.to_ascii_uppercase().starts_with("SET:");
    if is_copy && !is_prefix {
        let kind = Kind::NoCopy {
            setting,
            value: shown,
        };
        let lines = line(&format!("$SET:{name}")).filter(|_| key != name);
        return Some((kind, lines));
    }
    if name == "mail_path" {
        if let Some(lines) = settings_of(settings, value) {
            let kind = Kind::OldSpelling {
                setting,
                value: shown,
            };
            return Some((kind, Some(lines)));
        }
    }
    if let Some(variable) = old_variable(value).filter(|_| !is_prefix) {
        let kind = Kind::OldVariable {
            setting,
            variable: variable.to_owned(),
        };
        return Some((kind, of_new_variables(value).and_then(|value| line(&value))));
    }
    let is_absolute = value.starts_with('/') || value.starts_with("%{");
    if is_prefix {
        // Elsewhere it is a name in INDEX.
        let (_, file) = value.rsplit_once('/')?;
        if !is_absolute && !value.starts_with('~') && settings.get("mail_index_path").is_empty() {
            let kind = Kind::RelativePath {
                setting,
                value: shown,
            };
            return Some((kind, line(LOCAL_2_4)));
        }
        return file.is_empty().then(|| {
            let kind = Kind::DirectoryPrefix { value: shown };
            (kind, line(&format!("{value}dovecot.list.index")))
        });
    }
    let is_path = name != "mail_driver" && !value.is_empty();
    let is_relative = !is_absolute && !value.starts_with('~') && value != "MEMORY";
    (is_path && is_relative).then(|| {
        let kind = Kind::RelativePath {
            setting,
            value: shown,
        };
        (kind, line(&format!("~/{value}")))
    })
}

/// The settings of Dovecot 2.4 for a location of 2.3; `None` if it is a path.
fn settings_of(settings: &Settings, location: &str) -> Option<Vec<String>> {
    let meant = as_meant(location);
    let (driver, rest) = meant
        .split_once(':')
        .filter(|(driver, _)| DRIVERS.contains(driver))
        .map_or((None, meant.as_str()), |(driver, rest)| {
            (Some(driver), rest)
        });
    let mut parts = Vec::new();
    let mut rest = rest;
    while let Some((at, key, setting)) = KEYS
        .iter()
        .filter_map(|(key, setting)| Some((rest.rfind(&format!(":{key}="))?, key, setting)))
        .max()
    {
        parts.push((*setting, &rest[at + key.len() + 2..]));
        rest = &rest[..at];
    }
    if driver.is_none() && parts.is_empty() {
        return None;
    }
    let mut lines = Vec::new();
    if let Some(driver) = driver.filter(|_| settings.get("mail_driver").is_empty()) {
        lines.push(format!("mail_driver = {driver}"));
    }
    let path = of_new_variables(rest)?;
    lines.push(format!("mail_path = {path}"));
    for (setting, value) in parts.into_iter().rev() {
        if setting.is_empty() {
            return None;
        }
        let value = if setting == "mailbox_list_index_prefix" {
            if settings.get(setting).starts_with('/') {
                continue;
            }
            of_new_variables(value).unwrap_or_else(|| LOCAL_2_4.to_owned())
        } else {
            of_new_variables(value)?
        };
        lines.push(format!("{setting} = {value}"));
    }
    Some(lines)
}

/// The first variable that Dovecot 2.4 takes for text.
fn old_variable(value: &str) -> Option<&str> {
    let mut all = variables(value).into_iter();
    all.find(|variable| !variable.contains('{') && variable.len() > 1)
}

/// With the variables of Dovecot 2.4 in place of those of 2.3; `None` where there is no equivalent.
fn of_new_variables(value: &str) -> Option<String> {
    let mut text = value.to_owned();
    while let Some(variable) = old_variable(&text) {
        let new = match variable {
            "%u" | "%Lu" => "%{user}",
            "%n" | "%Ln" => "%{user | username}",
            "%d" | "%Ld" => "%{user | domain}",
            "%h" | "%Lh" if text.starts_with(variable) => "~",
            "%2.256Nu" => "%{user | md5 | substr(0, 8) % 256 | hex(2)}",
            _ => return None,
        };
        text = text.replacen(variable, new, 1);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::{as_meant, distance};

    #[test]
    fn a_location_that_dovecot_understands_stays_as_it_is() {
        for location in [
            "",
            "mdbox:~/mdbox",
            "mdbox:~/mdbox:LISTINDEX=/dev/shm/%2.256Nu/%u/dovecot.list.index",
            "maildir:/srv/%d/%n/Maildir:INDEX=/index/%d/%n:LAYOUT=fs",
            "mbox:~/mail:INBOX=/var/mail/%u:ITERINDEX:INDEX=~/index",
            "sdbox:~/a::b:INDEX=MEMORY",
            "mdbox:%{userdb:mail_dir}/x:CONTROL=/c",
            "imapc:~/imapc",
            "obox:%u:INDEX=~/",
            "mbox:mail",
            "virtual:~/virtual",
            "~/Maildir",
            "mdbox:~/mdbox:UTF-8:BROKENCHAR=~",
            "mdbox:/srv/mail, old/%u",
            "mdbox:~/mdbox:LISTINDEX",
        ] {
            assert_eq!(as_meant(location), location);
        }
    }

    #[test]
    fn slips_in_a_location_are_mended() {
        let good = "mdbox:~/mdbox:LISTINDEX=/l/%u/i";
        for location in [
            "mdbox:~/mdbox::LISTINDEX=/l/%u/i",
            "mdbox:~/mdbox:listindex=/l/%u/i",
            "mdbox:~/mdbox:LISTINDEX = /l/%u/i",
            "mdbox:~/mdbox: LISTINDEX=/l/%u/i",
            "mdbox:~/mdbox LISTINDEX=/l/%u/i",
            "mdbox:~/mdbox;LISTINDEX=/l/%u/i",
            "mdbox:~/mdbox,ListIndex=/l/%u/i",
            "mdbox:~/mdbox:LISTINDEX:/l/%u/i",
            "mdbox:~/mdbox:LIST_INDEX=/l/%u/i",
            "mdbox:~/mdbox:LISTINDX=/l/%u/i",
            "mdbx:~/mdbox:LISTINDEX=/l/%u/i",
        ] {
            assert_eq!(as_meant(location), good, "{location}");
        }
    }

    #[test]
    fn a_distance_counts_letters() {
        assert_eq!(distance("LISTINDEX", "LISTINDEX"), 0);
        assert_eq!(distance("mdbox", "mbox"), 1);
        assert_eq!(distance("migration", "migraton"), 1);
        assert_eq!(distance("abc", ""), 3);
    }
}
