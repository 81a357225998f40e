//! The post-login services, and the chain of programs that each executes.

use std::path::{Path, PathBuf};

use super::finding::{Findings, Kind, Remedy, write};
use super::people::Account;
use crate::dovecot::settings::Settings;
use crate::names::DEFAULT_CONFIGURATION;

/// The wrapper's name in Dovecot's libexec directory.
pub const WRAPPER: &str = "nfs-hostchange-login";
/// What executes the programs of the chain one after the other.
const SCRIPT_LOGIN: &str = "script-login";

/// Protocols with the services that serve a login.
pub const SERVICES: [(&str, &str); 4] = [
    ("imap", "imap"),
    ("pop3", "pop3"),
    ("submission", "submission"),
    ("sieve", "managesieve"),
];

/// A post-login service.
#[derive(Debug, Clone)]
pub struct PostLogin {
    /// The service's name.
    pub name: String,
    /// The service whose logins pass it.
    pub service: String,
    /// As whom it runs; `None` if nobody is called so.
    pub user: Option<Account>,
    /// Whether script-login takes on the user's ids before it executes anything.
    pub takes_ids: bool,
    /// The configuration file that the wrapper reads there.
    pub configuration: PathBuf,
    /// The line that begins the chain, with the wrapper in it.
    pub executable: Vec<String>,
    /// Whether it is in the configuration, too.
    pub has_wrapper: bool,
}

impl PostLogin {
    /// What executes the wrapper with the rights and groups of each mail user.
    pub fn with_users_ids(&self, settings: &Settings) -> Remedy {
        let mut words = self.executable.clone();
        words.insert(1, "-d".to_owned());
        let command = words.join(" ");
        // Nobody else can take on groups.
        let user = match &self.user {
            Some(user) if user.uid != 0 => "  user = root\n",
            _ => "",
        };
        let name = &self.name;
        write(
            settings,
            format!("service {name} {{\n{user}  executable = {command}\n}}"),
        )
    }

    /// The chain without the wrapper and its options; `None` if nothing else is in it.
    pub fn without_wrapper(&self) -> Option<Vec<String>> {
        let mut words = self.executable.clone();
        let at = words.iter().position(|word| is_called(word, WRAPPER))?;
        words.remove(at);
        while words.get(at).is_some_and(|word| word.starts_with('-')) {
            words.remove(at);
        }
        let has_others = words.iter().skip(1).any(|word| !word.starts_with('-'));
        has_others.then_some(words)
    }

    /// Whether the wrapper begins as root.
    pub fn is_root(&self) -> bool {
        !self.takes_ids && self.user.as_ref().is_some_and(|user| user.uid == 0)
    }
}

pub fn write_executable(settings: &Settings, service: &str, words: &[String]) -> Remedy {
    let command = words.join(" ");
    write(
        settings,
        format!("service {service} {{\n  executable = {command}\n}}"),
    )
}

/// The services of all protocols that are switched on.
pub fn in_use(settings: &Settings) -> Vec<&'static str> {
    let protocols = settings.words("protocols");
    SERVICES
        .into_iter()
        .filter(|(protocol, _)| protocols.contains(protocol))
        .map(|(_, service)| service)
        .collect()
}

/// The post-login services that execute the wrapper, without a word about them.
pub fn post_logins(settings: &Settings) -> Vec<PostLogin> {
    let mut ignored = Findings::default();
    in_use(settings)
        .into_iter()
        .filter_map(|service| Service { settings, service }.chain(&mut ignored))
        .filter(|post_login| post_login.has_wrapper)
        .collect()
}

/// A service that serves logins, and may have a post-login service in front of it.
pub struct Service<'a> {
    pub settings: &'a Settings,
    pub service: &'a str,
}

impl Service<'_> {
    /// The programs that a login passes, as far as they are written down.
    pub fn chain(&self, findings: &mut Findings) -> Option<PostLogin> {
        let (settings, service) = (self.settings, self.service);
        let key = format!("service/{service}/executable");
        let words = self.words(service, findings);
        let is_chain = words
            .first()
            .is_some_and(|word| is_called(word, SCRIPT_LOGIN) || is_called(word, WRAPPER));
        // The socket's name is the only argument.
        let socket = words.get(1).filter(|_| !is_chain);
        let Some(socket) = socket.map(|socket| settings.socket_name(socket)) else {
            let limit = settings.process_limit(service);
            let lines = format!(
                "service {service} {{\n  executable = {service} {service}-postlogin\n}}\n\
                 service {service}-postlogin {{\n  executable = {SCRIPT_LOGIN} {WRAPPER}\n  \
                 process_limit = {limit}\n  unix_listener {service}-postlogin {{\n  }}\n}}"
            );
            let service = service.to_owned();
            let (kind, place) = match is_chain {
                true => {
                    let executable = words.join(" ");
                    let kind = Kind::ChainInService {
                        service,
                        executable,
                    };
                    (kind, settings.place(&key))
                }
                false => (Kind::NoPostLogin { service }, None),
            };
            findings.add_at(kind, place, write(settings, lines));
            return None;
        };
        let name = self.listener(socket, findings)?;
        let key = |setting: &str| format!("service/{name}/{setting}");
        let place = settings.place(&key("executable"));
        let mut words = self.words(&name, findings);
        if words
            .first()
            .is_none_or(|word| !is_called(word, SCRIPT_LOGIN))
        {
            let executable = words.join(" ");
            words.insert(0, SCRIPT_LOGIN.to_owned());
            let kind = Kind::NoScriptLogin {
                service: name.clone(),
                executable,
            };
            findings.add_at(kind, place, write_executable(settings, &name, &words));
            return None;
        }
        let takes_ids = words.get(1).is_some_and(|word| word == "-d");
        let is_wrapper = |word: &String| is_called(word, WRAPPER);
        let has_wrapper = words.iter().any(is_wrapper);
        if !has_wrapper {
            words.push(WRAPPER.to_owned());
            words = self.with_paths(&words);
            let kind = Kind::NoWrapper {
                service: name.clone(),
            };
            findings.add_at(kind, place, write_executable(settings, &name, &words));
        }
        let at = words.iter().position(is_wrapper)?;
        let (mended, configuration) = self.options(&name, &words, at, findings);
        self.limit(&name, findings);
        self.chroot(&name, findings);
        self.last(&name, &mended, at, findings);
        let user = match settings.get(&key("user")) {
            "" => "root",
            user => user,
        };
        Some(PostLogin {
            user: Account::of(user).filter(|_| user.parse::<u32>().is_err()),
            takes_ids,
            configuration,
            executable: words,
            has_wrapper,
            name,
            service: service.to_owned(),
        })
    }

    /// The words of a service's executable, without what only a shell would understand.
    fn words(&self, service: &str, findings: &mut Findings) -> Vec<String> {
        let key = format!("service/{service}/executable");
        let executable = self.settings.get(&key);
        let words = without_shell(executable);
        if !executable.split_whitespace().eq(words.iter()) {
            let place = self.settings.place(&key);
            // Dovecot 2.3 does not start while the line is there.
            let line = format!("  executable = {}", words.join(" "));
            let remedy = place.clone().map(|place| Remedy::Replace(place, line));
            let kind = Kind::ShellWords {
                service: service.to_owned(),
                executable: executable.to_owned(),
            };
            findings.add_at(kind, place, remedy);
        }
        words
    }

    /// The service that listens on a socket. If none does, all logins fail that ask for it.
    fn listener(&self, socket: &str, findings: &mut Findings) -> Option<String> {
        let (settings, service) = (self.settings, self.service);
        let listener = |name: &str| {
            format!(
                "service/{name}/unix_listener/{}",
                socket.replace('/', "\\s")
            )
        };
        let place = settings.place(&format!("service/{service}/executable"));
        let kind = Kind::NoSocket {
            service: service.to_owned(),
            socket: socket.to_owned(),
        };
        // A service of a protocol that is switched off does not run.
        let protocols = settings.words("protocols");
        let has_protocol = |name: &str| {
            let protocol = settings.get(&format!("service/{name}/protocol"));
            protocol.is_empty() || protocols.contains(&protocol)
        };
        let is_off = |name: &&str| {
            let mode = settings.get(&format!("{}/mode", listener(name)));
            !mode.is_empty() && mode.chars().all(|digit| digit == '0') || !has_protocol(name)
        };
        let (off, mut on): (Vec<&str>, Vec<&str>) = settings
            .services_of_socket(socket)
            .into_iter()
            .partition(is_off);
        let before = on.len();
        on.retain(|name| *name != service);
        if let Some(name) = on.first() {
            return Some((*name).to_owned());
        }
        if let Some(name) = off.into_iter().find(|name| *name != service) {
            let lines = match has_protocol(name) {
                true => format!(
                    "service {name} {{\n  unix_listener {socket} {{\n    mode = 0600\n  }}\n}}"
                ),
                false => format!("service {name} {{\n  protocol = {service}\n}}"),
            };
            findings.add_at(kind, place, write(settings, lines));
            return None;
        }
        let elsewhere = match before {
            0 => String::new(),
            _ => format!(
                "service {service} {{\n  unix_listener {socket} {{\n    mode = 0\n  }}\n}}\n"
            ),
        };
        // The one that executes the wrapper, whatever its socket is called.
        let post_login = settings
            .names("service")
            .into_iter()
            .find(|name| {
                let executable = settings.get(&format!("service/{name}/executable"));
                executable
                    .split_whitespace()
                    .any(|word| is_called(word, WRAPPER))
            })
            .map_or_else(|| format!("{service}-postlogin"), str::to_owned);
        let lines =
            format!("{elsewhere}service {post_login} {{\n  unix_listener {socket} {{\n  }}\n}}");
        findings.add_at(kind, place, write(settings, lines));
        None
    }

    /// The wrapper's options; the chain with right ones, and the configuration file.
    fn options(
        &self,
        name: &str,
        words: &[String],
        at: usize,
        findings: &mut Findings,
    ) -> (Vec<String>, PathBuf) {
        let mut mended = words[..=at].to_vec();
        let mut rest = words[at + 1..].iter().peekable();
        let mut configuration = None;
        let mut wrong = None;
        while let Some(option) = rest.next_if(|word| word.starts_with('-')) {
            if let Some(file) = option.strip_prefix("--config=") {
                configuration = Some(file.to_owned());
            } else if option != "--" {
                wrong = Some(option.clone());
                // "--config FILE", or a slip of the finger.
                let file = match option.split_once('=') {
                    Some((_, file)) => Some(file.to_owned()),
                    None => rest.next_if(|word| word.starts_with('/')).cloned(),
                };
                configuration = configuration.or(file);
            }
        }
        mended.extend(
            configuration
                .as_ref()
                .map(|file| format!("--config={file}")),
        );
        mended.extend(rest.cloned());
        let place = self.settings.place(&format!("service/{name}/executable"));
        if let Some(option) = wrong {
            let kind = Kind::UnknownOption {
                option,
                service: name.to_owned(),
            };
            findings.add_at(kind, place, write_executable(self.settings, name, &mended));
        } else if let Some(file) = configuration
            .as_ref()
            .filter(|file| !Path::new(file).exists())
        {
            let without: Vec<_> = mended
                .iter()
                .filter(|word| !word.starts_with("--config="))
                .cloned()
                .collect();
            let kind = Kind::NoSuchConfiguration {
                file: file.clone(),
                service: name.to_owned(),
            };
            findings.add_at(kind, place, write_executable(self.settings, name, &without));
        }
        let configuration = configuration.unwrap_or_else(|| DEFAULT_CONFIGURATION.to_owned());
        (mended, PathBuf::from(configuration))
    }

    fn limit(&self, name: &str, findings: &mut Findings) {
        let own = self.settings.process_limit(name);
        let needed = self.settings.process_limit(self.service);
        if own < needed {
            let kind = Kind::ProcessLimit {
                post_login: name.to_owned(),
                own,
                service: self.service.to_owned(),
                needed,
            };
            let lines = format!("service {name} {{\n  process_limit = {needed}\n}}");
            let place = self
                .settings
                .place(&format!("service/{name}/process_limit"));
            findings.add_at(kind, place, write(self.settings, lines));
        }
    }

    fn chroot(&self, name: &str, findings: &mut Findings) {
        let key = format!("service/{name}/chroot");
        let directory = self.settings.get(&key);
        if !directory.is_empty() {
            let kind = Kind::ServiceChroot {
                service: name.to_owned(),
                directory: directory.to_owned(),
            };
            let lines = format!("service {name} {{\n  chroot =\n}}");
            findings.add_at(kind, self.settings.place(&key), write(self.settings, lines));
        }
    }

    fn last(&self, name: &str, words: &[String], at: usize, findings: &mut Findings) {
        let options = words[at + 1..]
            .iter()
            .take_while(|word| word.starts_with('-'))
            .count();
        let (wrapper, later) = words[at..].split_at(1 + options);
        if let Some(next) = later.first().filter(|word| !word.starts_with('/')) {
            let kind = Kind::NoPath {
                program: next.clone(),
                service: name.to_owned(),
            };
            // It was never executed, and nobody knows where it is.
            let words = self.with_paths(&[&words[..at], wrapper].concat());
            let place = self.settings.place(&format!("service/{name}/executable"));
            findings.add_at(kind, place, write_executable(self.settings, name, &words));
        } else if let Some(next) = later.first() {
            let kind = Kind::NotLast {
                service: name.to_owned(),
                program: next.clone(),
            };
            // Once is enough.
            let mut others = later.to_vec();
            while let Some(again) = others.iter().position(|word| is_called(word, WRAPPER)) {
                let options = others[again + 1..]
                    .iter()
                    .take_while(|word| word.starts_with('-'));
                let end = again + 1 + options.count();
                others.drain(again..end);
            }
            let words = self.with_paths(&[&words[..at], &others, wrapper].concat());
            let place = self.settings.place(&format!("service/{name}/executable"));
            findings.add_at(kind, place, write_executable(self.settings, name, &words));
        }
    }

    /// The same chain, with a path wherever the wrapper needs one.
    pub fn with_paths(&self, words: &[String]) -> Vec<String> {
        let first = words.iter().skip(1).position(|word| !word.starts_with('-'));
        let with_path = |(number, word): (usize, &String)| {
            if is_called(word, WRAPPER) && Some(number) != first.map(|first| first + 1) {
                self.settings.program(word).to_string_lossy().into_owned()
            } else {
                word.clone()
            }
        };
        words.iter().enumerate().map(with_path).collect()
    }
}

/// The words of an executable without the arguments of a shell script, and without quotes around a program or a
/// socket. Quotes in an argument may be meant so.
fn without_shell(executable: &str) -> Vec<String> {
    let is_for_shell = |word: &str| {
        let name = without_quotes(word).strip_prefix('$').unwrap_or_default();
        matches!(name.trim_matches(['{', '}']), "@" | "*")
    };
    let words = executable
        .split_whitespace()
        .filter(|word| !is_for_shell(word));
    let words = words.enumerate().map(|(number, word)| {
        let inside = without_quotes(word);
        match number < 2 || is_called(inside, WRAPPER) {
            true => inside.to_owned(),
            false => word.to_owned(),
        }
    });
    words.collect()
}

fn without_quotes(word: &str) -> &str {
    let inside = |quote| word.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(word)
}

pub fn is_called(word: &str, name: &str) -> bool {
    Path::new(word).file_name().is_some_and(|last| last == name)
}

#[cfg(test)]
mod tests {
    use super::without_shell;

    #[test]
    fn only_quotes_around_programs_and_a_scripts_arguments_are_for_a_shell() {
        let wrapper = "/usr/lib/dovecot/nfs-hostchange-login";
        for (executable, words) in [
            (r#"imap "imap-postlogin""#, "imap imap-postlogin".to_owned()),
            (
                &format!(r#"script-login "{wrapper}""#),
                format!("script-login {wrapper}"),
            ),
            (
                &format!(r#"script-login /a.sh '{wrapper}' "$@""#),
                format!("script-login /a.sh {wrapper}"),
            ),
            (
                &format!("script-login {wrapper} ${{*}} $@"),
                format!("script-login {wrapper}"),
            ),
        ] {
            assert_eq!(without_shell(executable).join(" "), words);
        }
        for same in [
            &format!(r#"script-login /a.sh --greeting="hi" {wrapper}"#),
            &format!(r#"script-login /a.sh "hi" it's {wrapper}"#),
            "imap imap-postlogin",
        ] {
            assert_eq!(without_shell(same).join(" "), *same);
        }
    }
}
