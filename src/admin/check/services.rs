//! Every login passes the wrapper, as the last script of the post-login chain.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::dovecot::Settings;
use super::{Findings, Remedy, Severity, WRAPPER, quoted};
use crate::names::DEFAULT_CONFIGURATION;

/// Protocols with the services that serve a login.
const SERVICES: [(&str, &str); 4] = [
    ("imap", "imap"),
    ("pop3", "pop3"),
    ("submission", "submission"),
    ("sieve", "managesieve"),
];

/// What executes the scripts of the chain one after the other.
const SCRIPT_LOGIN: &str = "script-login";

/// A post-login service that executes the wrapper.
pub struct PostLogin<'a> {
    /// As whom; root if empty.
    pub user: &'a str,
    /// The configuration file that the wrapper reads there.
    pub configuration: PathBuf,
}

/// Looks at the services of all protocols that are switched on.
pub fn check<'a>(settings: &'a Settings, findings: &mut Findings) -> Vec<PostLogin<'a>> {
    let mut post_logins = Vec::new();
    for (protocol, service) in SERVICES {
        let mut protocols = settings.get("protocols").split_whitespace();
        if protocols.any(|word| word == protocol) {
            post_logins.extend(check_service(settings, service, findings));
        }
    }
    post_logins
}

fn check_service<'a>(
    settings: &'a Settings,
    service: &str,
    findings: &mut Findings,
) -> Option<PostLogin<'a>> {
    let executable = settings.get(&format!("service/{service}/executable"));
    // The socket's name is the only argument.
    let socket = executable.split_whitespace().nth(1);
    let Some(post_login) = socket.and_then(|socket| settings.service_of_socket(socket)) else {
        let limit = settings.process_limit(service);
        findings.add(
            Severity::Error,
            "no_post_login",
            format_args!("{service} logins do not pass {WRAPPER}: users see old folders"),
            settings.write(format!(
                "service {service} {{\n  executable = {service} {service}-postlogin\n}}\n\
                 service {service}-postlogin {{\n  executable = {SCRIPT_LOGIN} {WRAPPER}\n  \
                 process_limit = {limit}\n  unix_listener {service}-postlogin {{\n  }}\n}}"
            )),
        );
        return None;
    };
    check_limit(settings, service, post_login, findings);
    check_chain(settings, service, post_login, findings)
}

fn check_limit(settings: &Settings, service: &str, post_login: &str, findings: &mut Findings) {
    let own = settings.process_limit(post_login);
    let needed = settings.process_limit(service);
    if own < needed {
        findings.add(
            Severity::Warning,
            "process_limit",
            format_args!(
                "process_limit of {post_login} is {own}, that of {service} {needed}: logins beyond it wait and are dropped"
            ),
            settings.write(format!("service {post_login} {{\n  process_limit = {needed}\n}}")),
        );
    }
}

fn check_chain<'a>(
    settings: &'a Settings,
    service: &str,
    post_login: &str,
    findings: &mut Findings,
) -> Option<PostLogin<'a>> {
    let command = settings.get(&format!("service/{post_login}/executable"));
    let words: Vec<&str> = command.split_whitespace().collect();
    let write = |words: &[&str]| {
        let command = words.join(" ");
        settings.write(format!(
            "service {post_login} {{\n  executable = {command}\n}}"
        ))
    };
    if words
        .first()
        .is_none_or(|word| !is_called(word, SCRIPT_LOGIN))
    {
        findings.add(
            Severity::Error,
            "no_script_login",
            format_args!(
                "service {post_login} does not execute {SCRIPT_LOGIN}: every {service} login fails"
            ),
            write(&[&[SCRIPT_LOGIN], &words[..]].concat()),
        );
    }
    let Some(position) = words.iter().position(|word| is_called(word, WRAPPER)) else {
        findings.add(
            Severity::Error,
            "no_wrapper",
            format_args!("service {post_login} does not execute {WRAPPER}: users see old folders"),
            write(&[&words[..], &[WRAPPER]].concat()),
        );
        return None;
    };
    let program = settings.program(words[position]);
    let status = fs::metadata(&program).ok().filter(fs::Metadata::is_file);
    if status
        .as_ref()
        .is_none_or(|status| status.mode() & 0o111 == 0)
    {
        let program = program.to_string_lossy();
        let quoted = quoted(&program);
        findings.add(
            Severity::Error,
            "not_executable",
            format_args!("{program} cannot be executed: every {service} login fails"),
            Remedy::Run(match status {
                Some(_) => format!("chmod a+rx {quoted}"),
                None => format!("install -D -m 0755 {WRAPPER} {quoted}"),
            }),
        );
    }
    let (before, from) = words.split_at(position);
    let options = from[1..]
        .iter()
        .take_while(|word| word.starts_with('-'))
        .count();
    let (wrapper, later) = from.split_at(1 + options);
    if let Some(next) = later.first() {
        findings.add(
            Severity::Warning,
            "not_last",
            format_args!(
                "service {post_login} executes {next} after {WRAPPER}: should it change MAIL_LOCATION or HOME, the wrong list index was looked at"
            ),
            write(&[before, later, wrapper].concat()),
        );
    }
    let configuration = wrapper
        .iter()
        .find_map(|word| word.strip_prefix("--config="))
        .unwrap_or(DEFAULT_CONFIGURATION);
    Some(PostLogin {
        user: settings.get(&format!("service/{post_login}/user")),
        configuration: PathBuf::from(configuration),
    })
}

fn is_called(word: &str, name: &str) -> bool {
    Path::new(word).file_name().is_some_and(|last| last == name)
}
