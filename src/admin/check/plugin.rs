//! The plugin, where it is the front end.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Findings, Kind, Remedy, write};
use super::person::Person;
use super::post_login::PostLogin;
use super::spelling::distance;
use super::wording::userdb_fields;
use crate::config::{migration_of_dovecot, recheck_of_dovecot};
use crate::dovecot::settings::{Generation, Settings};

const PLUGIN: &str = "nfs_hostchange";

/// Protocols in which mail can be changed; those that need no service are always in use.
const PROTOCOLS: [&str; 6] = ["imap", "pop3", "lmtp", "submission", "lda", "doveadm"];
const WITHOUT_SERVICE: [&str; 2] = ["lda", "doveadm"];

/// Whether mail processes of this protocol load the plugin.
pub fn is_loaded(settings: &Settings, protocol: &str) -> bool {
    let plugins = settings.in_protocol(protocol);
    plugins.is_ok_and(|settings| settings.words("mail_plugins").contains(&PLUGIN))
}

/// Looks at the plugin; returns whether it is in use at all.
pub fn check(
    settings: &Settings,
    post_logins: &[PostLogin],
    people: &[Person],
    findings: &mut Findings,
) -> bool {
    mistyped(settings, findings);
    plugin_settings(settings, people, findings);
    if !settings.mentions("mail_plugins", PLUGIN) {
        return false;
    }
    let in_use = settings.words("protocols");
    let (with, without): (Vec<&str>, Vec<&str>) = PROTOCOLS
        .into_iter()
        .filter(|protocol| WITHOUT_SERVICE.contains(protocol) || in_use.contains(protocol))
        .partition(|protocol| is_loaded(settings, protocol));
    if with.is_empty() {
        return false;
    }
    for protocol in without {
        let place = settings.place(&format!("protocol/{protocol}/mail_plugins"));
        let remedy = match settings.generation {
            Generation::V2_3 => {
                let own = settings.in_protocol(protocol);
                let own =
                    own.map_or_else(|_| String::new(), |own| own.get("mail_plugins").to_owned());
                let line = format!("mail_plugins = {}", format!("{own} {PLUGIN}").trim());
                match &place {
                    Some(place) => Remedy::Replace(place.clone(), line),
                    None => write(settings, format!("protocol {protocol} {{\n  {line}\n}}")),
                }
            }
            Generation::V2_4 => write(
                settings,
                format!("protocol {protocol} {{\n  mail_plugins {{\n    {PLUGIN} = yes\n  }}\n}}"),
            ),
        };
        let kind = Kind::PluginProtocols {
            protocol: protocol.to_owned(),
        };
        findings.add_at(kind, place, remedy);
    }
    if !post_logins.is_empty() {
        findings.add(Kind::BothFrontEnds, without_wrapper(settings, post_logins));
    }
    file(settings, findings);
    true
}

/// The services as they are without the wrapper: other post-login scripts stay.
fn without_wrapper(settings: &Settings, post_logins: &[PostLogin]) -> Remedy {
    let services = post_logins.iter().map(|post_login| {
        let (service, executable) = match post_login.without_wrapper() {
            Some(words) => (&post_login.name, words.join(" ")),
            None => (&post_login.service, post_login.service.clone()),
        };
        format!("service {service} {{\n  executable = {executable}\n}}")
    });
    write(settings, services.collect::<Vec<_>>().join("\n"))
}

/// A name that was meant to be the plugin's.
fn mistyped(settings: &Settings, findings: &mut Findings) {
    let letters = |word: &str| word.replace(['-', '_'], "").to_ascii_lowercase();
    for word in settings.words("mail_plugins") {
        let word = word.to_owned();
        if word == PLUGIN || letters(&word) != letters(PLUGIN) {
            continue;
        }
        let in_block = settings.place(&format!("mail_plugins/{word}"));
        let remedy = match (&in_block, settings.place("mail_plugins")) {
            (Some(place), _) => Some(Remedy::Replace(place.clone(), format!("{PLUGIN} = yes"))),
            (None, Some(place)) => {
                let plugins = settings.get("mail_plugins").replace(&word, PLUGIN);
                Some(Remedy::Replace(place, format!("mail_plugins = {plugins}")))
            }
            (None, None) => None,
        };
        let place = in_block.or_else(|| settings.place("mail_plugins"));
        findings.add_at(Kind::MistypedPlugin { word }, place, remedy);
    }
}

/// Settings of Dovecot 2.3 for the plugin; Dovecot 2.4 refuses them.
fn plugin_settings(settings: &Settings, people: &[Person], findings: &mut Findings) {
    const SETTINGS: [&str; 2] = ["migration", "recheck"];
    let is_of_userdb = |(setting, fields): &(String, String)| {
        let is_list = setting.ends_with("mail_plugins") || fields.contains("mail_plugins=");
        is_list && fields.contains(PLUGIN)
    };
    let is_in_use = settings.mentions("mail_plugins", PLUGIN)
        || userdb_fields(settings).iter().any(is_of_userdb)
        || people.iter().any(|person| {
            let plugins = person.fields.get("mail_plugins");
            plugins.is_some_and(|plugins| String::from_utf8_lossy(plugins).contains(PLUGIN))
        });
    for (name, value) in settings.below("plugin") {
        let letters = name.replace('-', "_").to_ascii_lowercase();
        let Some(own) = letters.strip_prefix(PLUGIN) else {
            continue;
        };
        let own = own.trim_start_matches('_');
        let meant = SETTINGS
            .into_iter()
            .find(|setting| distance(setting, own) <= 2);
        let setting = name.to_owned();
        let place = settings.place(&format!("plugin/{name}"));
        let (kind, line) = match meant {
            _ if !is_in_use => {
                let own = meant.unwrap_or(own).to_owned();
                (Kind::PluginSettingOfWrapper { setting, own }, String::new())
            }
            Some(meant) if name != format!("{PLUGIN}_{meant}") => (
                Kind::PluginSetting { setting },
                format!("  {PLUGIN}_{meant} = {value}"),
            ),
            None => (Kind::PluginSetting { setting }, String::new()),
            Some(meant) => {
                let (wanted, default) = match meant {
                    "migration" if migration_of_dovecot(value.as_bytes()).is_none() => {
                        ("yes or no", "no")
                    }
                    "recheck" if recheck_of_dovecot(value).is_none() => {
                        ("a number of seconds", "1")
                    }
                    _ => continue,
                };
                let line = format!("  {name} = {default}");
                let value = value.to_owned();
                (
                    Kind::PluginValue {
                        setting,
                        value,
                        wanted,
                    },
                    line,
                )
            }
        };
        let remedy = place.clone().map(|place| Remedy::Replace(place, line));
        findings.add_at(kind, place, remedy);
    }
}

/// The file is there, and built for this Dovecot.
fn file(settings: &Settings, findings: &mut Findings) {
    let configured = settings.get("mail_plugin_dir");
    let directory = match configured {
        "" => Path::new(settings.get("libexec_dir")).join("modules"),
        configured => PathBuf::from(configured),
    };
    let files = || {
        let entries = directory.read_dir().into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let is_ours = |path: &PathBuf| path.to_string_lossy().ends_with("nfs_hostchange_plugin.so");
    let Some(plugin) = files().find(is_ours) else {
        let directory = directory.display().to_string();
        return findings.add(Kind::NoPlugin { directory }, None);
    };
    let others = files().filter(|path| !is_ours(path));
    let dovecot = others.filter_map(|path| abi_of(&path)).next();
    if let (Some(own), Some(dovecot)) = (abi_of(&plugin), dovecot) {
        if own != dovecot {
            let file = plugin.display().to_string();
            findings.add(Kind::PluginAbi { file, own, dovecot }, None);
        }
    }
}

/// The version that a module says it was built for, "2.3.ABIv19(2.3.19.1)".
fn abi_of(module: &Path) -> Option<String> {
    let bytes = fs::read(module).ok()?;
    let middle = bytes.windows(5).position(|part| part == b".ABIv")?;
    let is_part = |byte: &u8| byte.is_ascii_graphic();
    let before = bytes[..middle]
        .iter()
        .rev()
        .take_while(|byte| is_part(byte))
        .count();
    let after = bytes[middle..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    let text = &bytes[middle - before..middle + after];
    Some(String::from_utf8_lossy(text).into_owned())
}
