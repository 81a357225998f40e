//! The plugin, where it is the front end.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Findings, Kind, write};
use super::post_login::PostLogin;
use crate::dovecot::settings::{Generation, Settings};

const PLUGIN: &str = "nfs_hostchange";

/// Protocols in which mail can be changed.
const PROTOCOLS: [&str; 5] = ["imap", "pop3", "lmtp", "lda", "doveadm"];

/// Whether mail processes of this protocol load the plugin.
pub fn is_loaded(settings: &Settings, protocol: &str) -> bool {
    let plugins = settings.in_protocol(protocol);
    plugins.is_ok_and(|settings| settings.words("mail_plugins").contains(&PLUGIN))
}

/// Looks at the plugin; returns whether it is in use at all.
pub fn check(settings: &Settings, post_logins: &[PostLogin], findings: &mut Findings) -> bool {
    if !settings.mentions("mail_plugins", PLUGIN) {
        return false;
    }
    let (with, without): (Vec<&str>, Vec<&str>) = PROTOCOLS
        .into_iter()
        .partition(|protocol| is_loaded(settings, protocol));
    if with.is_empty() {
        return false;
    }
    for protocol in without {
        let lines = match settings.generation {
            Generation::V2_3 => {
                format!("protocol {protocol} {{\n  mail_plugins = $mail_plugins {PLUGIN}\n}}")
            }
            Generation::V2_4 => {
                format!("protocol {protocol} {{\n  mail_plugins {{\n    {PLUGIN} = yes\n  }}\n}}")
            }
        };
        let kind = Kind::PluginProtocols {
            protocol: protocol.to_owned(),
        };
        let place = settings.place(&format!("protocol/{protocol}/mail_plugins"));
        findings.add_at(kind, place, write(settings, lines));
    }
    if !post_logins.is_empty() {
        findings.add(Kind::BothFrontEnds, None);
    }
    file(settings, findings);
    true
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
