//! Every login passes the wrapper, as the last program of a post-login chain that works.

use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::{Findings, Kind, Remedy, quoted};
use super::location::{Person, unknown_groups};
use super::people::{Account, MailUsers};
use crate::dovecot::settings::{Generation, Settings};
use crate::names::DEFAULT_CONFIGURATION;

/// The wrapper's name in Dovecot's libexec directory.
const WRAPPER: &str = "nfs-hostchange-login";
/// What executes the programs of the chain one after the other.
const SCRIPT_LOGIN: &str = "script-login";

/// Protocols with the services that serve a login.
pub const SERVICES: [(&str, &str); 4] = [
    ("imap", "imap"),
    ("pop3", "pop3"),
    ("submission", "submission"),
    ("sieve", "managesieve"),
];

/// A post-login service that executes the wrapper.
#[derive(Debug, Clone)]
pub struct PostLogin {
    /// The service's name.
    pub name: String,
    /// As whom it runs; `None` if nobody is called so.
    pub user: Option<Account>,
    /// Whether script-login takes on the user's ids before it executes anything.
    pub takes_ids: bool,
    /// The configuration file that the wrapper reads there.
    pub configuration: PathBuf,
    /// The line that begins the chain.
    executable: Vec<String>,
}

impl PostLogin {
    /// What executes the wrapper with the rights and groups of each mail user.
    pub fn with_users_ids(&self, settings: &Settings) -> Remedy {
        let mut words = self.executable.clone();
        words.insert(1, "-d".to_owned());
        write_executable(settings, &self.name, &words)
    }

    /// Whether the wrapper begins as root.
    pub fn is_root(&self) -> bool {
        !self.takes_ids && self.user.as_ref().is_some_and(|user| user.uid == 0)
    }
}

/// Lines for the end of Dovecot's main file.
pub fn write(settings: &Settings, lines: impl Into<String>) -> Remedy {
    Remedy::Append(settings.main_file().to_owned(), lines.into())
}

fn write_executable(settings: &Settings, service: &str, words: &[String]) -> Remedy {
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

/// The post-login services, without a word about them.
pub fn post_logins(settings: &Settings) -> Vec<PostLogin> {
    let mut ignored = Findings::default();
    in_use(settings)
        .into_iter()
        .filter_map(|service| Service { settings, service }.chain(&mut ignored))
        .collect()
}

/// Looks at the services of all protocols that are switched on.
pub fn check(settings: &Settings, users: &MailUsers, findings: &mut Findings) {
    const HIBERNATION: &str = "imap_hibernate_timeout";
    let timeout = settings.get(HIBERNATION);
    if !timeout.is_empty() && !timeout.starts_with('0') {
        let lines = format!("{HIBERNATION} = 0");
        findings.add_at(
            Kind::Hibernation,
            settings.place(HIBERNATION),
            write(settings, lines),
        );
    }
    for service in in_use(settings) {
        let service = Service { settings, service };
        if let Some(post_login) = service.chain(findings) {
            service.user(&post_login, users, findings);
            service.count(&post_login, users, findings);
            service.programs(&post_login, users, findings);
        }
    }
}

/// The wrapper must have the groups that the mail process has.
pub fn groups(
    settings: &Settings,
    post_logins: &[PostLogin],
    people: &[Person],
    findings: &mut Findings,
) {
    let Some(post_login) = post_logins.iter().find(|service| !service.takes_ids) else {
        return;
    };
    let groups = settings.get("mail_access_groups");
    // The default of newer versions, a group of Dovecot's own, owns no mail.
    let place = settings.place("mail_access_groups");
    if !groups.is_empty() && place.is_some() {
        let kind = Kind::AccessGroups {
            groups: groups.to_owned(),
        };
        findings.add_at(kind, place, post_login.with_users_ids(settings));
    }
    for person in people.iter().filter(|_| post_login.is_root()) {
        let groups: Vec<String> = unknown_groups(person).iter().map(u32::to_string).collect();
        if !groups.is_empty() {
            let kind = Kind::UnknownGroups {
                user: person.name.clone(),
                groups: groups.join(", "),
            };
            findings.add(kind, post_login.with_users_ids(settings));
            return;
        }
    }
}

struct Service<'a> {
    settings: &'a Settings,
    service: &'a str,
}

impl Service<'_> {
    /// The programs that a login passes, as far as they are written down.
    fn chain(&self, findings: &mut Findings) -> Option<PostLogin> {
        let (settings, service) = (self.settings, self.service);
        let executable = settings.get(&format!("service/{service}/executable"));
        // The socket's name is the only argument.
        let socket = executable.split_whitespace().nth(1);
        let Some(name) = socket.and_then(|socket| settings.service_of_socket(socket)) else {
            let limit = settings.process_limit(service);
            let lines = format!(
                "service {service} {{\n  executable = {service} {service}-postlogin\n}}\n\
                 service {service}-postlogin {{\n  executable = {SCRIPT_LOGIN} {WRAPPER}\n  \
                 process_limit = {limit}\n  unix_listener {service}-postlogin {{\n  }}\n}}"
            );
            let kind = Kind::NoPostLogin {
                service: service.to_owned(),
            };
            findings.add(kind, write(settings, lines));
            return None;
        };
        let name = name.to_owned();
        let key = |setting: &str| format!("service/{name}/{setting}");
        let place = settings.place(&key("executable"));
        let command = settings.get(&key("executable"));
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words
            .first()
            .is_none_or(|word| !is_called(word, SCRIPT_LOGIN))
        {
            words.insert(0, SCRIPT_LOGIN.to_owned());
            let kind = Kind::NoScriptLogin {
                service: name.clone(),
                executable: command.to_owned(),
            };
            findings.add_at(kind, place, write_executable(settings, &name, &words));
            return None;
        }
        let takes_ids = words.get(1).is_some_and(|word| word == "-d");
        let Some(at) = words.iter().position(|word| is_called(word, WRAPPER)) else {
            words.push(WRAPPER.to_owned());
            let words = self.with_paths(&words);
            let kind = Kind::NoWrapper {
                service: name.clone(),
            };
            findings.add_at(kind, place, write_executable(settings, &name, &words));
            return None;
        };
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
            name,
        })
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
        if let Some(next) = later.first() {
            let kind = Kind::NotLast {
                service: name.to_owned(),
                program: next.clone(),
            };
            let words = self.with_paths(&[&words[..at], later, wrapper].concat());
            let place = self.settings.place(&format!("service/{name}/executable"));
            findings.add_at(kind, place, write_executable(self.settings, name, &words));
        }
    }

    /// The same chain, with a path wherever the wrapper needs one.
    fn with_paths(&self, words: &[String]) -> Vec<String> {
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

    fn user(&self, post_login: &PostLogin, users: &MailUsers, findings: &mut Findings) {
        let settings = self.settings;
        let name = &post_login.name;
        let key = format!("service/{name}/user");
        let place = settings.place(&key);
        let wanted = match users {
            MailUsers::One(account) if account.has_name() => account.name.as_str(),
            _ => "root",
        };
        let remedy = write(
            settings,
            format!("service {name} {{\n  user = {wanted}\n}}"),
        );
        let Some(account) = &post_login.user else {
            let kind = Kind::NoSuchUser {
                service: name.clone(),
                user: settings.get(&key).to_owned(),
            };
            return findings.add_at(kind, place, remedy);
        };
        // What Dovecot's own processes run as owns nobody's mail.
        let internal = ["default_internal_user", "default_login_user"]
            .map(|setting| settings.get(setting))
            .contains(&account.name.as_str())
            || account.name == "nobody";
        let is_wrong = match users {
            MailUsers::One(user) => account.uid != user.uid,
            MailUsers::Many(_) => true,
            MailUsers::Unknown => internal,
        };
        if account.uid != 0 && is_wrong {
            let kind = Kind::ServiceUser {
                service: name.clone(),
                user: account.name.clone(),
                mail_user: match users {
                    MailUsers::One(user) => user.name.clone(),
                    MailUsers::Many(_) => "a user of its own for each".to_owned(),
                    MailUsers::Unknown => "others".to_owned(),
                },
            };
            findings.add_at(kind, place, remedy);
        }
    }

    /// A process that serves several logins has given up root after the first.
    fn count(&self, post_login: &PostLogin, users: &MailUsers, findings: &mut Findings) {
        let setting = match self.settings.generation {
            Generation::V2_3 => "service_count",
            Generation::V2_4 => "restart_request_count",
        };
        let key = format!("service/{}/{setting}", self.service);
        let count = self.settings.get(&key);
        if matches!(count, "" | "1") {
            return;
        }
        let name = &post_login.name;
        let socket = self
            .settings
            .get(&format!("service/{}/executable", self.service));
        let socket = socket.split_whitespace().nth(1).unwrap_or(name);
        let listener = format!(
            "service/{name}/unix_listener/{}",
            socket.replace('/', "\\s")
        );
        let owner = Account::of(self.settings.get(&format!("{listener}/user")));
        let mode = self.settings.get(&format!("{listener}/mode"));
        let lines = match users {
            MailUsers::One(user) if owner.is_some_and(|owner| owner.uid == user.uid) => return,
            _ if mode.ends_with("66") => return,
            MailUsers::One(user) => format!(
                "service {name} {{\n  unix_listener {socket} {{\n    user = {}\n  }}\n}}",
                user.name
            ),
            _ => format!("service {} {{\n  {setting} = 1\n}}", self.service),
        };
        let kind = Kind::ServiceCount {
            service: self.service.to_owned(),
            count: count.to_owned(),
            setting,
        };
        findings.add_at(kind, self.settings.place(&key), write(self.settings, lines));
    }

    /// Each program of the chain can be executed.
    fn programs(&self, post_login: &PostLogin, users: &MailUsers, findings: &mut Findings) {
        let words = &post_login.executable;
        let place = self
            .settings
            .place(&format!("service/{}/executable", post_login.name));
        let service = || post_login.name.clone();
        let executor = match (post_login.takes_ids, users, &post_login.user) {
            (true, MailUsers::One(user), _) => Some(user.clone()),
            (true, ..) => None,
            (false, _, user) => user.clone(),
        };
        let mut is_first = true;
        for word in words.iter().skip(1).filter(|word| !word.starts_with('-')) {
            let is_wrapper = is_called(word, WRAPPER);
            let is_path = word.contains('/');
            if !is_first && is_wrapper && !is_path {
                let kind = Kind::NoPath {
                    program: word.clone(),
                    service: service(),
                };
                let words = self.with_paths(words);
                findings.add_at(
                    kind,
                    place.clone(),
                    write_executable(self.settings, &post_login.name, &words),
                );
            }
            // What else has no path is an argument.
            if is_first || is_wrapper || word.starts_with('/') {
                let program = self.settings.program(word);
                if let Some((kind, remedy)) = fault(&program, executor.as_ref(), service()) {
                    let remedy = remedy.or_else(|| {
                        // A script that is not there can only be left out.
                        let left = words.iter().filter(|other| *other != word);
                        let left: Vec<_> = left.cloned().collect();
                        Some(write_executable(self.settings, &post_login.name, &left))
                    });
                    findings.add_at(kind, place.clone(), remedy);
                }
            }
            is_first = false;
        }
    }
}

/// Why a program cannot be executed, and what mends that.
fn fault(
    program: &Path,
    executor: Option<&Account>,
    service: String,
) -> Option<(Kind, Option<Remedy>)> {
    let shown = program.to_string_lossy().into_owned();
    let word = quoted(&shown);
    let is_wrapper = is_called(&shown, WRAPPER);
    let install = || Remedy::Run(format!("install -D -m 0755 {WRAPPER} {word}"));
    let Some(status) = fs::metadata(program).ok().filter(Metadata::is_file) else {
        let kind = Kind::NotThere {
            program: shown,
            service,
        };
        return Some((kind, is_wrapper.then(install)));
    };
    let user = executor.map_or("every mail user", |user| user.name.as_str());
    let may = |status: &Metadata| {
        let bits = executor.map_or(0o001, |user| user.bits_of(status.uid(), status.gid()));
        status.mode() & 0o111 & bits != 0
    };
    let closed = program
        .ancestors()
        .skip(1)
        .find(|above| above.metadata().is_ok_and(|status| !may(&status)));
    if closed.is_some() || !may(&status) {
        let kind = Kind::NotExecutable {
            program: shown,
            user: user.to_owned(),
            service,
        };
        let command = match closed {
            Some(directory) => format!("chmod a+x {}", quoted(&directory.to_string_lossy())),
            None => format!("chmod a+rx {word}"),
        };
        return Some((kind, Some(Remedy::Run(command))));
    }
    // Others may be scripts that a shell executes even without "#!".
    let mut begin = [0; 4];
    let read = fs::File::open(program).and_then(|mut file| file.read(&mut begin));
    if is_wrapper && read.is_ok() && begin != *b"\x7fELF" && !begin.starts_with(b"#!") {
        let kind = Kind::NotAProgram {
            program: shown,
            service,
        };
        return Some((kind, Some(install())));
    }
    None
}

fn is_called(word: &str, name: &str) -> bool {
    Path::new(word).file_name().is_some_and(|last| last == name)
}
