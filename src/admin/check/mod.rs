//! `nfs-hostchange check`: what is wrong with this backend.
//!
//! Dovecot is asked, and its answers are judged by what a login does with them. First the facts: [`running`]
//! says whether Dovecot can be asked, [`people`] whom about, [`person`] what a login of theirs is told,
//! [`post_login`] which programs it passes, [`wording`] what the configuration says of list indexes.
//!
//! Then one module for each thing that can be wrong: the [`services`], the wrapper's own [`configuration`],
//! the [`plugin`], the userdb's [`fields`], the [`spelling`] of locations, the
//! [`location`] of list indexes, other [`namespaces`], the
//! [`directories`] that must be there, the [`room`] for them, and the [`host`] itself. [`finding`] has the words of all that can be
//! found.

mod configuration;
mod directories;
mod fields;
pub mod finding;
mod host;
mod location;
mod namespaces;
mod people;
mod person;
mod plugin;
mod post_login;
pub mod print;
mod room;
mod running;
mod services;
mod spelling;
mod wording;

use std::path::Path;

use configuration::Wrapper;
use directories::{Above, Plan};
use finding::{Finding, Findings, Kind};
use people::{Account, MailUsers};
use person::Person;
use post_login::PostLogin;

use crate::dovecot::doveadm::DoveadmError;
use crate::dovecot::master::Master;
use crate::dovecot::settings::Settings;

/// What is known before anything is judged.
struct Backend {
    post_logins: Vec<PostLogin>,
    master: Option<Master>,
    /// Where list indexes are by the configuration, with Dovecot's variables; empty if nowhere.
    template: String,
    people: Vec<Person>,
    users: MailUsers,
    /// How many users Dovecot knows; 0 if it cannot list them.
    known: usize,
}

impl Backend {
    fn look(settings: &Settings, named: &[String], findings: &mut Findings) -> Self {
        let master = Master::find(Path::new(settings.get("base_dir")));
        let template = wording::template(settings);
        let mut people = Vec::new();
        let mut known = 0;
        if running::check(settings, master, findings) {
            let base = Above::of_template(&template).map(|above| above.base);
            let (names, all) = people::users(settings, named, base.as_deref(), findings);
            known = all;
            for name in names {
                match person::ask(settings, &name) {
                    Ok(person) => people.push(person),
                    Err(error) => {
                        let (user, reason) = (name, error.to_string());
                        match error {
                            DoveadmError::Refused(_) if is_of_auth(&reason) => {
                                findings.add_of_user(
                                    Kind::LookupFails { user, reason },
                                    None,
                                    None,
                                );
                            }
                            DoveadmError::Refused(_) => {
                                findings.add_of_user(
                                    Kind::UnknownUser { user, reason },
                                    None,
                                    None,
                                );
                            }
                            _ => findings.add(Kind::UnknownUser { user, reason }, None),
                        }
                    }
                }
            }
        }
        // Of those whom nobody named, some are not meant to log in.
        let may_log_in = |person: &Person| person.limits(settings).is_empty();
        if named.is_empty() && people.iter().any(may_log_in) {
            people.retain(may_log_in);
        }
        if people.is_empty() {
            people.extend(person::anybody(settings));
        }
        let post_logins = post_login::post_logins(settings);
        let users = Self::users(settings, &people, &post_logins);
        Self {
            post_logins,
            master,
            template,
            people,
            users,
            known,
        }
    }

    /// Whose mail it is: what all users who were asked about have in common, unless it is only one of whom
    /// nothing says that all others are like him.
    fn users(settings: &Settings, people: &[Person], post_logins: &[PostLogin]) -> MailUsers {
        let configured = MailUsers::configured(settings);
        let mut uids: Vec<u32> = people.iter().filter_map(Person::uid).collect();
        let number = uids.len();
        uids.dedup();
        let asked = MailUsers::of_uids(uids);
        let is_certain = number > 1
            || match &asked {
                MailUsers::One(account) => {
                    let runs_as = |service: &PostLogin| service.user.as_ref() == Some(account);
                    post_logins.iter().any(runs_as) || people::is_named(settings, account)
                }
                _ => true,
            };
        match (configured, asked) {
            (configured, MailUsers::Unknown) | (configured @ MailUsers::Many(_), _) => configured,
            (MailUsers::Unknown, asked) if is_certain => asked,
            (MailUsers::One(_), asked) => asked,
            (configured, _) => configured,
        }
    }

    fn above(&self) -> Option<Above> {
        let directories = self.people.iter().filter_map(|person| {
            let tracked = person.tracked.as_ref()?;
            Some(tracked.list_index_dir())
        });
        let directories: Vec<_> = directories.collect();
        let configured = Above::of_template(&self.template);
        let Some(&first) = directories.first() else {
            return configured;
        };
        // Where the userdb has another one, that counts.
        configured
            .filter(|above| first.starts_with(&above.base))
            .or_else(|| Above::of_directories(directories.into_iter()))
    }
}

/// Whether auth itself fails, and with it every login.
fn is_of_auth(reason: &str) -> bool {
    ["lookup failed", "Disconnected unexpectedly"]
        .iter()
        .any(|part| reason.contains(part))
}

/// Everything that is found, the worst first.
#[must_use]
pub fn check(settings: &Settings, named: &[String]) -> Vec<Finding> {
    let mut findings = Findings::default();
    let mut backend = Backend::look(settings, named, &mut findings);
    let has_plugin = plugin::check(
        settings,
        &backend.post_logins,
        &backend.people,
        &mut findings,
    );
    let has_wrapper = !has_plugin || !backend.post_logins.is_empty();
    if has_wrapper {
        services::check(settings, &backend.users, &mut findings);
    }
    // Mail users may have nothing but that in common.
    let of_plugin = match &backend.users {
        _ if !has_plugin => None,
        MailUsers::One(account) => Some(account.clone()),
        _ => Account::of("nobody"),
    };
    let wrapper = configuration::check(
        settings,
        &backend.post_logins,
        of_plugin.as_ref(),
        &mut findings,
    );
    services::groups(
        settings,
        &backend.post_logins,
        &backend.people,
        &mut findings,
    );
    fields::check(settings, has_wrapper, &mut findings);
    let is_understood = spelling::check(settings, &mut findings);
    let Backend {
        people,
        users,
        post_logins,
        ..
    } = &mut backend;
    if is_understood {
        location::check(
            settings,
            people,
            users,
            post_logins,
            &wrapper,
            has_wrapper,
            &mut findings,
        );
    }
    namespaces::check(
        settings,
        &backend.people,
        &wrapper,
        has_plugin,
        &mut findings,
    );
    location::index_is_open(settings, &backend.people, &mut findings);
    location::index_is_shared(&backend.people, &mut findings);
    let is_chrooted = |person: &Person| person.is_chrooted(settings);
    let above = backend
        .above()
        .filter(|_| !backend.people.iter().any(is_chrooted));
    if let Some(above) = above {
        let plan = Plan::new(settings, &backend.users, &above);
        directories::check(
            settings,
            &plan,
            &backend.people,
            backend.master,
            &mut findings,
        );
        room::check(&plan, backend.known, backend.master, &mut findings);
        host::check(&plan, &mut findings);
    }
    running::refusal(settings, &mut findings);
    findings.sorted()
}

/// What tmpfiles.d(5) has to make at boot, a line for each directory; `None` if list indexes are
/// not local.
#[must_use]
pub fn tmpfiles(settings: &Settings, named: &[String]) -> Option<String> {
    let mut ignored = Findings::default();
    let mut backend = Backend::look(settings, named, &mut ignored);
    let Backend {
        people,
        users,
        post_logins,
        ..
    } = &mut backend;
    let wrapper = Wrapper::default();
    location::check(
        settings,
        people,
        users,
        post_logins,
        &wrapper,
        true,
        &mut ignored,
    );
    let above = backend.above()?;
    Some(Plan::new(settings, &backend.users, &above).tmpfiles())
}
