//! Every login passes the wrapper, as the last program of a post-login chain that works.

use std::fs::{self, Metadata};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::directories::mount_point;
use super::finding::{Findings, Kind, Remedy, quoted, write};
use super::people::{Account, MailUsers, gid_of, gids_of, may};
use super::person::{Person, unknown_groups};
use super::post_login::{PostLogin, Service, WRAPPER, in_use, is_called, write_executable};
use crate::dovecot::settings::{Generation, Settings};

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
            owners(settings, &post_login, findings);
            service.count(&post_login, users, findings);
            service.programs(&post_login, users, findings);
            service.address_space(&post_login, findings);
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
    // The default of newer versions, a group of Dovecot's own, owns no mail.
    let place = settings.place("mail_access_groups");
    let listed = settings.get("mail_access_groups").split([' ', ',']);
    let groups: Vec<&str> = listed
        .filter(|group| !group.is_empty() && !is_group_of_all(people, group))
        .collect();
    if !groups.is_empty() && place.is_some() {
        let kind = Kind::AccessGroups {
            groups: groups.join(", "),
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

/// Whom the service's groups and sockets are given to must exist.
fn owners(settings: &Settings, post_login: &PostLogin, findings: &mut Findings) {
    let service = format!("service/{}", post_login.name);
    let mut add = |setting: &str, exists: &dyn Fn(&str) -> bool, lines: String| {
        let key = format!("{service}/{setting}");
        let owner = settings.get(&key);
        // A variable may be anybody.
        if !owner.is_empty() && !owner.starts_with('$') && !exists(owner) {
            let kind = Kind::NoSuchOwner {
                setting: key.clone(),
                owner: owner.to_owned(),
            };
            let lines = format!("service {} {{\n{lines}\n}}", post_login.name);
            findings.add_at(kind, settings.place(&key), write(settings, lines));
        }
    };
    let is_user = |name: &str| Account::of(name).is_some();
    let is_group = |name: &str| gid_of(name).is_some();
    let are_groups = |names: &str| {
        let mut names = names.split([' ', ',']).filter(|name| !name.is_empty());
        names.all(|name| gid_of(name).is_some())
    };
    add("group", &is_group, "  group =".to_owned());
    add(
        "privileged_group",
        &is_group,
        "  privileged_group =".to_owned(),
    );
    add("extra_groups", &are_groups, "  extra_groups =".to_owned());
    for socket in settings.names(&format!("{service}/unix_listener")) {
        let name = socket.replace("\\s", "/");
        let lines = |setting| format!("  unix_listener {name} {{\n    {setting} =\n  }}");
        let key = |setting| format!("unix_listener/{socket}/{setting}");
        add(&key("user"), &is_user, lines("user"));
        add(&key("group"), &is_group, lines("group"));
    }
}

/// Whether it is the group that each user's processes have anyway.
fn is_group_of_all(people: &[Person], group: &str) -> bool {
    let Some(gid) = gid_of(group) else {
        return false;
    };
    let has = |person: &Person| person.gid() == Some(gid);
    !people.is_empty() && people.iter().all(has)
}

impl Service<'_> {
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
            if settings.get(&key).starts_with('$') {
                return;
            }
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
        let socket = self.settings.socket_name(socket);
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

    /// script-login and its libraries need more address space than a small program.
    fn address_space(&self, post_login: &PostLogin, findings: &mut Findings) {
        let settings = self.settings;
        let own = format!("service/{}/vsz_limit", post_login.name);
        // As Dovecot 2.3 shows that there is none.
        const NOT_SET: [&str; 3] = ["", "unlimited", "18446744073709551615 B"];
        let is_set = |setting: &&str| !NOT_SET.contains(&settings.get(setting));
        let Some(setting) = [own.as_str(), "default_vsz_limit"].into_iter().find(is_set) else {
            return;
        };
        let limit = settings.get(setting).replace(' ', "");
        let program = settings.program(&post_login.executable[0]);
        if kibibytes(&limit).is_some_and(|limit| cannot_start(&program, limit)) {
            let service = post_login.name.clone();
            let lines = format!("service {service} {{\n  vsz_limit = 256M\n}}");
            let place = settings.place(setting);
            let setting = setting.to_owned();
            let kind = Kind::AddressSpace {
                service,
                limit,
                setting,
            };
            findings.add_at(kind, place, write(settings, lines));
        }
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
        let key = |setting: &str| format!("service/{}/{setting}", post_login.name);
        let mut groups: Vec<u32> = ["group", "privileged_group"]
            .into_iter()
            .filter_map(|setting| gid_of(self.settings.get(&key(setting))))
            .collect();
        groups.extend(gids_of(self.settings.get(&key("extra_groups"))));
        groups.extend(gids_of(self.settings.get("mail_access_groups")));
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
                if let Some((why, remedy)) = fault(&program, executor.as_ref(), &groups) {
                    let remedy = remedy.or_else(|| {
                        // A script that is not there can only be left out.
                        let left = words.iter().filter(|other| *other != word);
                        let left: Vec<_> = self.with_paths(&left.cloned().collect::<Vec<_>>());
                        Some(write_executable(self.settings, &post_login.name, &left))
                    });
                    let kind = Kind::NotExecutable {
                        program: program.to_string_lossy().into_owned(),
                        service: service(),
                        why,
                    };
                    findings.add_at(kind, place.clone(), remedy);
                }
            }
            is_first = false;
        }
    }
}

/// A size as Dovecot writes it; `None` if it is 0, which is no limit.
fn kibibytes(size: &str) -> Option<u64> {
    let end = size.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = size.split_at(end.unwrap_or(size.len()));
    let shift = match unit.bytes().next().map(|byte| byte.to_ascii_lowercase()) {
        None | Some(b'b') => 0,
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        Some(_) => return None,
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0).then_some(bytes >> 10)
}

/// Whether a program of Dovecot's does not even begin with so much address space. One that begins complains that it has
/// no environment.
fn cannot_start(program: &Path, kibibytes: u64) -> bool {
    const NOT_LOADED: i32 = 127;
    /// Of the defaults, and what is enough.
    const ENOUGH: u64 = 256 << 10;
    if kibibytes >= ENOUGH || !program.exists() {
        return false;
    }
    let status = Command::new("/bin/sh")
        .args(["-c", "ulimit -c 0; ulimit -v \"$1\" && exec \"$0\""])
        .arg(program)
        .arg(kibibytes.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.code().is_none_or(|code| code == NOT_LOADED))
}

/// Whether a script's first line names a shell that has `"$@"`.
fn is_for_shell(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let name = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let interpreter = match words.next().map(name) {
        Some(env) if env == "env" => words.next().map(name),
        other => other,
    };
    const SHELLS: [&str; 5] = ["sh", "dash", "bash", "ksh", "ash"];
    interpreter.is_some_and(|name| SHELLS.contains(&name.as_str()))
}

/// Whether a shell script may execute the rest of the chain: it names it, or is continued in another file.
fn may_go_on(script: &str) -> bool {
    let arguments = ["$@", "$*", "${@", "${*", "$1", "${1"];
    let is_continued = |line: &str| {
        line.split([';', '&', '|'])
            .filter_map(|command| command.split_whitespace().find(|word| *word != "then"))
            .any(|command| [".", "source"].contains(&command))
    };
    arguments.iter().any(|words| script.contains(words)) || script.lines().any(is_continued)
}

/// Why a program cannot be executed, and what fixes that.
fn fault(
    program: &Path,
    executor: Option<&Account>,
    groups: &[u32],
) -> Option<(String, Option<Remedy>)> {
    let run = |command: String| Some(Remedy::Run(command));
    let shown = program.to_string_lossy();
    let word = quoted(&shown);
    let is_wrapper = is_called(&shown, WRAPPER);
    let install = || format!("install -D -m 0755 {WRAPPER} {word}");
    let Some(status) = fs::metadata(program).ok().filter(Metadata::is_file) else {
        let remedy = is_wrapper.then(|| Remedy::Run(install()));
        return Some(("does not exist".to_owned(), remedy));
    };
    if statvfs(program).is_ok_and(|status| status.flags().contains(FsFlags::ST_NOEXEC)) {
        let mount_point = mount_point(program);
        let mount_point = quoted(&mount_point.to_string_lossy());
        return Some((
            "is on a file system that is mounted noexec".to_owned(),
            run(format!("mount -o remount,exec {mount_point}")),
        ));
    }
    let text = fs::read(program).unwrap_or_default();
    let interpreter = text.strip_prefix(b"#!").map(|rest| {
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    });
    let may = |status: &Metadata, bits| may(executor, status, bits, groups);
    let closed = program.ancestors().skip(1).find(|above| {
        let status = above.metadata();
        status.is_ok_and(|status| !may(&status, 0o111))
    });
    // A script must also be read.
    let needed: &[u32] = match interpreter {
        Some(_) => &[0o111, 0o444],
        None => &[0o111],
    };
    let is_closed = needed.iter().any(|&bits| !may(&status, bits));
    if closed.is_some() || is_closed {
        let user = executor.map_or("every mail user", |user| user.name.as_str());
        let command = match closed {
            Some(directory) => format!("chmod a+x {}", quoted(&directory.to_string_lossy())),
            None => format!("chmod a+rx {word}"),
        };
        return Some((format!("cannot be executed by {user}"), run(command)));
    }
    match interpreter {
        Some(line) if line.ends_with('\r') => Some((
            "is a script with Windows line ends, so its interpreter does not exist".to_owned(),
            run(format!("sed -i 's/\\r$//' {word}")),
        )),
        Some(line) => {
            let interpreter = line.split_whitespace().next().unwrap_or_default();
            if !Path::new(interpreter).is_file() {
                let why = format!("is a script for {interpreter}, which does not exist");
                return Some((why, None));
            }
            let text = String::from_utf8_lossy(&text);
            (is_for_shell(&line) && !may_go_on(&text)).then(|| {
                let why = "does not end with 'exec \"$@\"', which executes the rest".to_owned();
                let append = Remedy::Run(format!("printf '\\nexec \"$@\"\\n' >>{word}"));
                let ends = text.contains("exit") || text.contains("exec");
                (why, Some(append).filter(|_| !ends))
            })
        }
        // Others may be scripts that a shell executes even so.
        None if is_wrapper && !text.starts_with(b"\x7fELF") => {
            Some(("is not a program".to_owned(), run(install())))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_for_shell, may_go_on};

    #[test]
    fn only_shells_that_have_these_arguments_are_judged() {
        for line in ["/bin/sh", "/bin/sh -e", "/usr/bin/env bash", " /bin/dash"] {
            assert!(is_for_shell(line), "{line}");
        }
        for line in [
            "/usr/bin/fish",
            "/usr/bin/tclsh",
            "/usr/bin/env zsh",
            "/usr/bin/pwsh",
            "/usr/bin/env -S bash",
            "",
        ] {
            assert!(!is_for_shell(line), "{line}");
        }
    }

    #[test]
    fn a_script_that_sources_another_may_go_on_there() {
        for script in [
            "#!/bin/sh\nexec \"$@\"\n",
            "#!/bin/sh\n  . /etc/lib\n",
            "#!/bin/bash\nif true; then source /etc/lib; fi\n",
            "#!/bin/sh\n[ -e /x ] && . /x\n",
            "#!/bin/sh\nprogram=${1?}\nexec $program\n",
        ] {
            assert!(may_go_on(script), "{script}");
        }
        for script in ["#!/bin/sh\n: nothing. At all\n", "#!/bin/sh\nexit 0\n"] {
            assert!(!may_go_on(script), "{script}");
        }
    }
}
