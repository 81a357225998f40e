//! What the configuration alone shows: userdb fields that do not become what they look like, and settings that win
//! over them.

use super::finding::{Findings, Kind, Remedy, write};
use super::wording::{
    LOCATIONS, OPTIONAL, REQUIRED, add_field, for_userdb, inbox, removed, userdb_fields, variables,
};
use crate::dovecot::settings::{Generation, Settings};

/// Looks at the configuration alone: what can be seen without any user.
pub fn check(settings: &Settings, has_wrapper: bool, findings: &mut Findings) {
    variables_in_fields(settings, findings);
    match settings.generation {
        Generation::V2_3 => blanks(settings, findings),
        Generation::V2_4 => {
            left_over(settings, findings);
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
    if settings.get("mailbox_list_index") == "no" {
        let kind = Kind::ListIndexOff {
            user: "everybody".to_owned(),
        };
        let place = settings.place("mailbox_list_index");
        findings.add_at(kind, place, write(settings, "mailbox_list_index = yes"));
    }
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

/// Fields are separated by blanks in Dovecot 2.3.
fn blanks(settings: &Settings, findings: &mut Findings) {
    for (setting, value) in userdb_fields(settings) {
        let mut words = value.split(' ').filter(|word| !word.is_empty());
        let is_of_driver = setting.ends_with("/args") && !value.contains("home=");
        if is_of_driver {
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
            findings.add_at(kind, settings.place(&setting), None);
        }
    }
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
    let wanted: &[&str] = match settings.generation {
        Generation::V2_3 => &["mail_location"],
        Generation::V2_4 => &REQUIRED,
    };
    let is_default = |field: &str| {
        ["default_fields", "override_fields"].iter().any(|setting| {
            let key = format!("userdb/{userdb}/{setting}");
            settings.get(&key).contains(&format!("{field}="))
        })
    };
    let passdbs = settings.names("passdb");
    let has = |field: &str| {
        if is_default(field) {
            return true;
        }
        let field = format!("userdb_{field}");
        !settings.get(&format!("passdb_fields/{field}")).is_empty()
            || passdbs.iter().any(|passdb| {
                let key = |setting: &str| format!("passdb/{passdb}/{setting}");
                !settings.get(&key(&format!("fields/{field}"))).is_empty()
                    || ["args", "default_fields", "override_fields"]
                        .iter()
                        .any(|setting| settings.get(&key(setting)).contains(&format!("{field}=")))
            })
    };
    let missing: Vec<&str> = wanted.iter().copied().filter(|field| !has(field)).collect();
    let Some(first) = missing.first() else {
        return;
    };
    let remedy = match settings.generation {
        Generation::V2_4 => {
            let lines: String = missing
                .iter()
                .map(|field| format!("  userdb_{field} = $SET:{field}\n"))
                .collect();
            Some(write(settings, format!("passdb_fields {{\n{lines}}}")))
        }
        Generation::V2_3 => {
            let location = for_userdb(settings);
            add_field(settings, "passdb", "userdb_mail_location", &location)
        }
    };
    let kind = Kind::Prefetch {
        field: format!("userdb_{first}"),
    };
    findings.add_at(kind, settings.place(&format!("userdb/{userdb}")), remedy);
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

/// `$SET:` of a setting that is not set.
fn empty_paths(settings: &Settings, findings: &mut Findings) {
    for (rest, value) in settings.below("userdb_fields") {
        let name = rest.rsplit('/').next().unwrap_or(rest);
        if value.is_empty() && ["mail_path", "mail_driver"].contains(&name) {
            let place = settings.place(&format!("userdb_fields/{rest}"));
            let kind = Kind::EmptyPath {
                setting: format!("userdb_fields/{rest}"),
            };
            findings.add_at(kind, place.clone(), place.map(removed));
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
