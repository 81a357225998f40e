//! What the configuration alone shows: userdb fields that do not become what they look like, and settings that win
//! over them.

use std::fs;
use std::path::Path;

use super::finding::{Findings, Kind, Remedy, write};
use super::people::field_of_userdb;
use super::wording::{
    LOCAL_2_4, LOCATIONS, OPTIONAL, REQUIRED, add_userdb_field, fields_of_2_4, for_userdb, inbox,
    removed, userdb_fields, userdb_location, variables,
};
use crate::dovecot::settings::{Generation, Settings, is_no};

/// Looks at the configuration alone: what can be seen without any user.
pub fn check(settings: &Settings, has_wrapper: bool, findings: &mut Findings) {
    variables_in_fields(settings, findings);
    match settings.generation {
        Generation::V2_3 => {
            second_lines(settings, findings);
            blanks(settings, findings);
        }
        Generation::V2_4 => {
            left_over(settings, findings);
            overridden(settings, findings);
            inbox_path(settings, findings);
            empty_paths(settings, findings);
        }
    }
    // The plugin asks the mail process itself.
    if has_wrapper {
        prefetch(settings, findings);
        match settings.generation {
            Generation::V2_3 => clients(settings, findings),
            Generation::V2_4 => blocks(settings, findings),
        }
    }
    if settings.is_off("mailbox_list_index") {
        let kind = Kind::ListIndexOff {
            user: "everybody".to_owned(),
        };
        let place = settings.place("mailbox_list_index");
        findings.add_at(kind, place, write(settings, "mailbox_list_index = yes"));
    }
    for (key, value) in settings.ending_with("mailbox_list_index") {
        let block = key.strip_suffix("/mailbox_list_index").unwrap_or(key);
        let namespace = block.strip_prefix("namespace/");
        let is_of_inbox = namespace.is_some() && namespace == inbox(settings);
        let is_of_all = is_of_inbox || block.starts_with("protocol/") && !block[9..].contains('/');
        if is_no(value) && is_of_all {
            let kind = Kind::ListIndexOff {
                user: format!(
                    "everybody, in the block {},",
                    block.replacen('/', " ", 1).replace("\\s", "/")
                ),
            };
            let place = settings.place(key);
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
    no_inbox(settings, findings);
}

/// Where namespaces are configured, one must be the inbox's.
fn no_inbox(settings: &Settings, findings: &mut Findings) {
    let namespaces = settings.names("namespace");
    let key = |name: &str, setting: &str| format!("namespace/{name}/{setting}");
    // A userdb may enable one that is disabled here.
    let has_inbox = |name: &&str| settings.is_on(&key(name, "inbox"));
    if namespaces.is_empty() || namespaces.iter().any(has_inbox) {
        return;
    }
    let is_own = |name: &&str| {
        matches!(settings.get(&key(name, "type")), "" | "private")
            && !settings.is_on(&key(name, "disabled"))
    };
    let mut own = namespaces.into_iter().filter(is_own);
    let first = own.clone().next();
    let name = own.find(|name| *name == "inbox").or(first);
    let place = name.and_then(|name| settings.place(&format!("namespace/{name}")));
    let line = name.and_then(|name| settings.place(&key(name, "inbox")));
    let yes = "  inbox = yes".to_owned();
    let remedy = match (line, place.clone()) {
        (Some(line), _) => Remedy::Replace(line, yes),
        (None, Some(block)) => Remedy::After(block, yes),
        (None, None) => write(settings, "namespace inbox {\n  inbox = yes\n}"),
    };
    findings.add_at(Kind::NoInbox, place, remedy);
}

/// What auth does not know when it expands fields.
fn variables_in_fields(settings: &Settings, findings: &mut Findings) {
    for (field, value) in userdb_fields(settings) {
        let is_place = ["mail", "location", "path", "prefix"]
            .iter()
            .any(|word| field.contains(word) || value.contains(&format!("{word}=")));
        for variable in variables(&value).into_iter().filter(|_| is_place) {
            let name = variable
                .trim_start_matches(['%', '{'])
                .trim_end_matches('}')
                .trim_start_matches(|c: char| {
                    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.'
                })
                .split(['|', ' '])
                .next()
                .unwrap_or_default();
            let name = name.rsplit_once(':').map_or(name, |(_, last)| last);
            let is_field = field.ends_with("_fields") || field.contains("fields/");
            let (variable, setting) = (variable.to_owned(), field.clone());
            let (kind, other) = match name {
                "h" | "home" => (Kind::UserdbVariable { variable, setting }, "~"),
                "i" | "uid" | "gid" if is_field => {
                    (Kind::RefusedVariable { variable, setting }, "%u")
                }
                "s" | "service" | "protocol" | "l" | "r" | "a" | "b" if is_field => {
                    (Kind::ChangingVariable { variable, setting }, "mail")
                }
                "lip" | "rip" | "lport" | "rport" | "pid" | "session" if is_field => {
                    (Kind::ChangingVariable { variable, setting }, "mail")
                }
                _ => continue,
            };
            let mended = match &kind {
                // Dovecot 2.4 wants an absolute path there.
                Kind::UserdbVariable { setting, .. }
                    if setting.ends_with("/mailbox_list_index_prefix") =>
                {
                    LOCAL_2_4.to_owned()
                }
                Kind::UserdbVariable { variable, .. }
                | Kind::RefusedVariable { variable, .. }
                | Kind::ChangingVariable { variable, .. } => {
                    value.replace(variable.as_str(), other)
                }
                _ => continue,
            };
            replace_field(settings, &field, kind, mended, findings);
            break;
        }
    }
}

/// Writes a userdb field anew where it stands: the value may be a copy of a setting.
fn replace_field(
    settings: &Settings,
    setting: &str,
    kind: Kind,
    value: String,
    findings: &mut Findings,
) {
    let name = setting.rsplit('/').next().unwrap_or(setting);
    let original = settings
        .place(name)
        .filter(|_| settings.generation == Generation::V2_4);
    let place = original.or_else(|| settings.place(setting));
    let remedy = place
        .clone()
        .map(|place| Remedy::Replace(place, format!("{name} = {value}")));
    findings.add_at(kind, place, remedy);
}

/// Of two lines in one block only the last counts.
fn second_lines(settings: &Settings, findings: &mut Findings) {
    for (setting, value) in userdb_fields(settings) {
        let places = settings.files().places(&setting);
        let [.., first, last] = places.as_slice() else {
            continue;
        };
        let line = first.text();
        let fields = line.split_once('=').map_or("", |(_, fields)| fields);
        let name = |word: &str| word.split('=').next().unwrap_or(word).to_owned();
        let kept: Vec<String> = value.split_whitespace().map(name).collect();
        let lost: Vec<&str> = fields
            .split_whitespace()
            .filter(|word| !kept.contains(&name(word)))
            .collect();
        if !lost.is_empty() {
            let fields = lost.join(" ");
            let name = setting.rsplit('/').next().unwrap_or(&setting);
            let line = format!("  {name} = {fields} {value}");
            let remedy = Remedy::Replace(last.clone(), line);
            let kind = Kind::SecondLine {
                setting: setting.clone(),
                fields,
            };
            findings.add_at(kind, last.clone(), remedy);
        }
    }
}

/// Fields are separated by blanks in Dovecot 2.3.
fn blanks(settings: &Settings, findings: &mut Findings) {
    for (setting, value) in userdb_fields(settings) {
        let mut words = value.split(' ').filter(|word| !word.is_empty());
        let is_of_driver = setting.ends_with("/args") && !value.contains("home=");
        if is_of_driver {
            continue;
        }
        if value.contains("=\"") || value.contains("='") {
            let place = settings.place(&setting);
            let name = setting.rsplit('/').next().unwrap_or(&setting);
            let line = format!("{name} = {}", value.replace(['"', '\''], ""));
            let remedy = place.clone().map(|place| Remedy::Replace(place, line));
            findings.add_at(Kind::QuotedField { setting }, place, remedy);
            continue;
        }
        if value.contains(" = ") {
            let place = settings.place(&setting);
            let name = setting.rsplit('/').next().unwrap_or(&setting);
            let line = format!("{name} = {}", value.replace(" = ", "="));
            let remedy = place.clone().map(|place| Remedy::Replace(place, line));
            let word = "=".to_owned();
            findings.add_at(Kind::Blank { word, setting }, place, remedy);
            continue;
        }
        // The first words of args may be options of the driver.
        let mut in_fields = !setting.ends_with("/args");
        let lost = words.find(|word| {
            in_fields |= word.contains('=');
            in_fields && !word.contains('=') && *word != "allow_all_users"
        });
        if let Some(word) = lost {
            let kind = Kind::Blank {
                word: word.to_owned(),
                setting: setting.clone(),
            };
            let place = settings.place(&setting);
            let remedy = place.clone().and_then(|place| {
                let name = setting.rsplit('/').next()?;
                let value = without_blanks(&value, &for_userdb(settings))?;
                Some(Remedy::Replace(place, format!("{name} = {value}")))
            });
            findings.add_at(kind, place, remedy);
        }
    }
}

/// With that location in place of the one that a blank cut off; `None` if it has blanks, too, or something
/// else was cut off.
fn without_blanks(fields: &str, location: &str) -> Option<String> {
    let mut mended: Vec<String> = Vec::new();
    for word in fields.split(' ').filter(|word| !word.is_empty()) {
        let is_lost = !word.contains('=') || word.starts_with('/');
        match mended.last_mut() {
            Some(before) if is_lost => {
                let (field, _) = before.split_once('=')?;
                if !LOCATIONS.contains(&field) && !field.ends_with("/location") {
                    return None;
                }
                *before = format!("{field}={location}");
            }
            _ => mended.push(word.to_owned()),
        }
    }
    (!location.contains(' ')).then(|| mended.join(" "))
}

/// Locations of the inbox for some clients only.
fn clients(settings: &Settings, findings: &mut Findings) {
    let inbox = format!("namespace/{}/location", inbox(settings).unwrap_or("inbox"));
    for (key, value) in settings.ending_with("location") {
        let is_filter = ["remote/", "local/", "local_name/"]
            .iter()
            .any(|kind| key.starts_with(kind));
        if is_filter && key.ends_with(&inbox) && value != settings.get(&inbox) {
            let place = settings.place(key);
            let block = key
                .strip_suffix(&inbox)
                .unwrap_or(key)
                .trim_end_matches('/');
            let kind = Kind::BlockSetting {
                setting: inbox.clone(),
                block: block.replacen('/', " ", 1).replace("\\s", "/"),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
}

/// A prefetch userdb knows only what the passdb found, and with Dovecot 2.3 its own default fields.
fn prefetch(settings: &Settings, findings: &mut Findings) {
    let is_prefetch = |name: &&str| {
        *name == "prefetch" || settings.get(&format!("userdb/{name}/driver")) == "prefetch"
    };
    let userdbs = settings.names("userdb");
    let Some(userdb) = userdbs.into_iter().find(is_prefetch) else {
        return;
    };
    let place = settings.place(&format!("userdb/{userdb}"));
    if settings.generation == Generation::V2_3 {
        let is_there = |field| {
            field_of_userdb(settings, userdb, field).is_some() || is_of_passdb(settings, field)
        };
        if !LOCATIONS.into_iter().any(is_there) {
            let kind = Kind::Prefetch {
                field: "userdb_mail_location".to_owned(),
            };
            let remedy = add_userdb_field(settings, "mail_location", &for_userdb(settings));
            findings.add_at(kind, place, remedy);
        } else {
            other_prefetch(settings, findings);
        }
        return;
    }
    let missing: Vec<&str> = REQUIRED
        .into_iter()
        .filter(|field| !is_of_passdb(settings, field))
        .collect();
    let old_copies: Vec<&str> = REQUIRED
        .into_iter()
        .filter(|field| {
            let copy = settings.get(&format!("passdb_fields/userdb_{field}"));
            !copy.is_empty() && copy != settings.get(field)
        })
        .collect();
    let name = |field: &&str| format!("userdb_{field}");
    let (kind, fields) = match (missing.first().map(name), old_copies.first().map(name)) {
        (Some(field), _) => (Kind::Prefetch { field }, missing),
        (None, Some(field)) => (Kind::OldCopy { field }, old_copies),
        (None, None) => return,
    };
    let remedy = fields_of_2_4(settings, &fields, ("passdb_fields", "userdb_"));
    findings.add_at(kind, place, remedy);
}

/// Deliveries ask the userdb that comes after the prefetch.
fn other_prefetch(settings: &Settings, findings: &mut Findings) {
    let Some((field, delivery)) = userdb_location(settings) else {
        return;
    };
    let begins = format!("userdb_{field}=");
    for passdb in settings.names("passdb") {
        for setting in ["args", "default_fields", "override_fields"] {
            let key = format!("passdb/{passdb}/{setting}");
            let value = settings.get(&key);
            let mut words = value.split_whitespace();
            let login = words.find_map(|word| word.strip_prefix(begins.as_str()));
            if let Some(login) = login.filter(|login| *login != delivery) {
                let kind = Kind::OtherPrefetch {
                    login: login.to_owned(),
                    delivery: delivery.to_owned(),
                };
                let line = format!("  {setting} = {}", value.replace(login, delivery));
                let place = settings.place(&key);
                let remedy = place.clone().map(|place| Remedy::Replace(place, line));
                findings.add_at(kind, place, remedy);
            }
        }
    }
}

/// Whether a passdb may return this userdb field, by its settings or by a query in them.
fn is_of_passdb(settings: &Settings, field: &str) -> bool {
    let field = format!("userdb_{field}");
    let is_returned = |(setting, value): (&str, &str)| {
        let file = Path::new(value);
        let is_in_file = || fs::read_to_string(file).is_ok_and(|text| text.contains(&field));
        setting.ends_with(&field)
            || value.contains(&field)
            || setting == "args" && file.is_absolute() && is_in_file()
    };
    !settings.get(&format!("passdb_fields/{field}")).is_empty()
        || settings
            .names("passdb")
            .into_iter()
            .any(|passdb| settings.below(&format!("passdb/{passdb}")).any(is_returned))
}

/// A field for Dovecot 2.3.
fn left_over(settings: &Settings, findings: &mut Findings) {
    for field in LOCATIONS {
        let key = format!("userdb_fields/{field}");
        if !settings.get(&key).is_empty() {
            let place = settings.place(&key);
            let kind = Kind::LeftOver {
                field: field.to_owned(),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
        }
    }
}

/// Debian's configuration has the inbox in /var/mail, where dbox cannot have it.
fn inbox_path(settings: &Settings, findings: &mut Findings) {
    let (driver, path) = (settings.get("mail_driver"), settings.get("mail_inbox_path"));
    if driver.ends_with("dbox") && !path.is_empty() {
        let kind = Kind::InboxPath {
            path: path.to_owned(),
            driver: driver.to_owned(),
        };
        let place = settings.place("mail_inbox_path");
        findings.add_at(kind, place, write(settings, "mail_inbox_path ="));
    }
}

/// What a database returns per user loses against the fields for all.
fn overridden(settings: &Settings, findings: &mut Findings) {
    for field in REQUIRED.into_iter().chain(OPTIONAL) {
        let key = format!("userdb_fields/{field}");
        let Some(place) = settings.place(&key) else {
            continue;
        };
        let database = settings.names("userdb").into_iter().find(|userdb| {
            let get = |setting: &str| settings.get(&format!("userdb/{userdb}/{setting}"));
            let file = fs::read_to_string(get("passwd_file_path")).unwrap_or_default();
            get("query").contains(field) || file.contains(&format!("userdb_{field}="))
        });
        if let Some(database) = database {
            let kind = Kind::OverriddenField {
                field: field.to_owned(),
                database: format!("userdb {database}"),
            };
            findings.add_at(kind, place.clone(), removed(place));
        }
    }
}

/// `$SET:` of a setting that is not set.
fn empty_paths(settings: &Settings, findings: &mut Findings) {
    for (rest, value) in settings.below("userdb_fields") {
        let name = rest.rsplit('/').next().unwrap_or(rest);
        if value.is_empty() && ["mail_path", "mail_driver"].contains(&name) {
            let place = settings.place(&format!("userdb_fields/{rest}"));
            // It may have been copied before it was set.
            let remedy = match settings.get(name) {
                "" => place.clone().map(removed),
                _ => Some(fields_of_2_4(settings, &[name], ("userdb_fields", ""))),
            };
            let kind = Kind::EmptyPath {
                setting: format!("userdb_fields/{rest}"),
            };
            findings.add_at(kind, place, remedy);
        }
    }
}

/// Settings in blocks that can win over userdb fields in Dovecot 2.4.
fn blocks(settings: &Settings, findings: &mut Findings) {
    let inbox = inbox(settings).map(|name| format!("namespace/{name}/"));
    for setting in REQUIRED.into_iter().chain(OPTIONAL) {
        let field = settings.get(&format!("userdb_fields/{setting}"));
        let own_field = inbox.as_ref().map_or("", |inbox| {
            settings.get(&format!("userdb_fields/{inbox}{setting}"))
        });
        for (key, value) in settings.ending_with(setting) {
            let is_filter = ["protocol/", "remote/", "local/", "local_name/"]
                .iter()
                .any(|kind| key.starts_with(kind));
            let is_inbox = inbox
                .as_ref()
                .is_some_and(|inbox| key.starts_with(inbox.as_str()));
            let same = match own_field {
                "" => value == field,
                own => value == own || is_inbox,
            };
            if !(is_filter || is_inbox) || same {
                continue;
            }
            let place = settings.place(key);
            let block = key
                .strip_suffix(setting)
                .unwrap_or(key)
                .trim_end_matches('/');
            let kind = Kind::BlockSetting {
                setting: setting.to_owned(),
                block: block.replacen('/', " ", 1).replace("\\s", "/"),
            };
            let remedy = if is_inbox {
                let inbox = inbox.as_deref().unwrap_or_default();
                Some(write(
                    settings,
                    format!("userdb_fields {{\n  {inbox}{setting} = {value}\n}}"),
                ))
            } else {
                place.clone().map(removed)
            };
            findings.add_at(kind, place, remedy);
        }
    }
}
