//! What a claim says, and what the one that stands says of this backend.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::files;
use crate::local::lock::{Kind, Lock, LockError, Shared};
use crate::local::session::{Session, State};
use crate::local::sign;
use crate::nfs::claim::{ClaimText, Without};
use crate::nfs::directory::{IndexDirectory, Look};
use crate::nfs::identity::Version;
use crate::reconcile::Reconciliation;
use crate::reconcile::outcome::Doubt;

/// A claim names this many sessions of one backend: a mailbox that many people share has hundreds. With
/// those that are carried on it is shorter than the longest that is read.
const MOST_NAMED: usize = 192;

/// A claim carries on so many of other backends' sessions, the latest. A backend that is gone never finds
/// its own over; and where there still is one, its process claims for it at its end all the same.
const MOST_CARRIED: usize = 64;

/// A session that a claim names counts no longer than this if nobody can tell whether it is over: one of
/// too many, one that another version wrote, one whose process serves others by now. Its own process claims
/// for it at its end all the same.
const COUNTS: Duration = Duration::from_secs(86_400);

impl Reconciliation<'_> {
    /// What a claim says that is made for the list index here.
    pub(super) fn claim_here(
        &self,
        standing: Option<&ClaimText>,
        migrating: Option<Version>,
    ) -> ClaimText {
        ClaimText {
            host: self.host().to_string(),
            migrating,
            list_index: Some(self.list_index()),
            without: self.carried_on(standing, None),
        }
    }

    /// What a claim says that is made for no list index, but for `session`.
    pub(super) fn claim_without(
        &self,
        standing: Option<&ClaimText>,
        session: Option<Session>,
    ) -> ClaimText {
        let host = self.host().to_string();
        let before = standing.filter(|standing| standing.host == host);
        ClaimText {
            list_index: before.and_then(|standing| standing.list_index.clone()),
            host,
            migrating: None,
            without: self.carried_on(standing, session),
        }
    }

    /// What a claim says that is made for no list index, when `session` is over: its process may go on
    /// with others.
    pub(super) fn claim_when_over(
        &self,
        standing: Option<&ClaimText>,
        session: &Session,
    ) -> ClaimText {
        let (host, session) = (self.host(), session.to_string());
        let mut text = self.claim_without(standing, None);
        let is_other = |without: &Without| without.host != host || without.session != session;
        text.without.retain(is_other);
        text
    }

    /// The path of the list index here.
    fn list_index(&self) -> PathBuf {
        let prefix = OsStr::from_bytes(self.prefix.to_bytes());
        self.list_index_directory.join(prefix)
    }

    /// Confirms that this backend keeps no other list index of the same mailbox, as it does if two user
    /// names lead to it: neither would learn what is done with the other. One that is not in step and
    /// that nobody uses does not count: its next login finds out by itself.
    pub(super) fn confirm_no_other_list_index<K: Kind>(
        &self,
        here: Option<&ListIndexDirectory>,
        lock: Option<&Lock<'_, K>>,
        look: &Look,
        standing: Option<&ClaimText>,
    ) -> Result<(), Doubt> {
        let host = self.host();
        let named = standing
            .filter(|standing| standing.host == host.as_str())
            .and_then(|standing| standing.list_index.as_ref())
            .filter(|&path| *path != self.list_index());
        let Some(other) = named else {
            return Ok(());
        };
        let prefix = other.file_name().map(|name| CString::new(name.as_bytes()));
        let (Some(path), Some(Ok(prefix))) = (other.parent(), prefix) else {
            return Ok(());
        };
        let is_kept = match ListIndexDirectory::open(path, self.actor.user()) {
            // This one by another path, or under another name in it.
            Ok(directory) if here.map_or(Ok(false), |here| here.is_same_as(&directory))? => {
                prefix != self.prefix
                    && match lock {
                        Some(lock) => self.is_kept(lock, &prefix, look),
                        None => is_used(&directory, &prefix),
                    }
            }
            Ok(directory) => match Lock::<Shared>::acquire_existing(&directory) {
                Ok(lock) => self.is_kept(&lock, &prefix, look),
                Err(LockError::TimedOut(_)) => true,
                Err(_) => is_used(&directory, &prefix),
            },
            // Another user's, who has a uid of his own.
            Err(DirectoryError::ForeignOwner(..) | DirectoryError::Unusable(_, Errno::EACCES)) => {
                true
            }
            Err(_) => false,
        };
        if is_kept {
            Err(Doubt::OtherListIndex(other.clone()))
        } else {
            Ok(())
        }
    }

    /// Whether the list index called `prefix` in the locked directory is in step with the claim that
    /// stands, or a session goes on there that changes the store without another look at the claim.
    fn is_kept<K: Kind>(&self, lock: &Lock<'_, K>, prefix: &CStr, look: &Look) -> bool {
        let record = lock.record(prefix, Some(&self.host()));
        record.is_some_and(|record| Some(record.claim) == look.claim)
            || is_used(lock.directory(), prefix)
    }

    /// Confirms that the claim that stands can be read. Another user may have made it, with a list index of
    /// his own, which would not learn what is done with this one.
    pub(super) fn confirm_readable(
        index: &IndexDirectory<'_>,
        standing: Option<&ClaimText>,
    ) -> Result<(), Doubt> {
        match standing {
            Some(standing) if standing.host.is_empty() => {
                Err(Doubt::UnreadableClaim(index.path_of(index.claim_name())))
            }
            _ => Ok(()),
        }
    }

    /// The sessions that the next claim must name: `session`, and of those that the standing claim names
    /// other backends' and the ones here that are not over.
    fn carried_on(&self, standing: Option<&ClaimText>, session: Option<Session>) -> Vec<Without> {
        let (host, now) = (self.host(), now());
        let mut carried: Vec<_> = standing
            .into_iter()
            .flat_map(|standing| &standing.without)
            .filter(|without| without.host != host || is_still_open(without))
            .cloned()
            .collect();
        for without in carried.iter_mut().filter(|without| without.host == host) {
            // From now on, if nobody has said so, or a clock was wrong.
            without.since = without.since.filter(|since| *since <= now).or(Some(now));
        }
        let others = carried.iter().filter(|without| without.host != host);
        let mut too_many = others.count().saturating_sub(MOST_CARRIED);
        carried.retain(|without| {
            let goes = too_many > 0 && without.host != host;
            too_many -= usize::from(goes);
            !goes
        });
        if let Some(session) = session {
            let is_named = |name: &str| {
                let mut named = carried.iter();
                named.position(|without| without.host == host && without.session == name)
            };
            let (name, many) = (session.to_string(), session.anonymous().to_string());
            let here = carried.iter().filter(|without| without.host == host);
            match (is_named(&name), is_named(&many)) {
                (Some(_), _) => {}
                (None, Some(many)) => carried[many].since = Some(now),
                (None, None) => carried.push(Without {
                    // Too many to name each: one line stands for all others.
                    session: if here.count() < MOST_NAMED {
                        name
                    } else {
                        many
                    },
                    host,
                    since: Some(now),
                }),
            }
        }
        carried
    }

    /// Confirms that no session is open whose sign had no place here.
    pub(super) fn confirm_none_claimed_for(
        &self,
        standing: Option<&ClaimText>,
    ) -> Result<(), Doubt> {
        let host = self.host();
        let mut named = standing.into_iter().flat_map(|standing| &standing.without);
        match named.find(|without| without.host == host && is_still_open(without)) {
            Some(named) => Err(Doubt::NamedSession(named.clone())),
            None => Ok(()),
        }
    }
}

/// Whether a session has the list index open, or goes without it.
fn is_used(directory: &ListIndexDirectory, prefix: &CStr) -> bool {
    files::is_in_use(directory, prefix) || sign::open_session(directory, Some(prefix)) != Ok(None)
}

/// Whether a session of this backend's that a claim names is not over.
fn is_still_open(without: &Without) -> bool {
    let session = without.session.parse().ok();
    let session = session.or_else(|| Session::of_boot(&without.session));
    match session.map(|session| (session.state(), session.is_named())) {
        Some((State::Over, _)) => false,
        Some((State::Open, true)) => true,
        _ => without
            .since
            .is_none_or(|since| now().saturating_sub(since) < COUNTS.as_secs()),
    }
}

/// In seconds since the epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::{MOST_CARRIED, MOST_NAMED};
    use crate::nfs::claim::{ClaimText, LONGEST, Without};
    use crate::nfs::host::HostName;

    #[test]
    fn a_claim_that_names_as_many_sessions_as_it_may_is_read_to_its_end() {
        let ipv6 = format!(
            "tcp10:{0}:{0}:ffff:ffff:{1}:{1}",
            "f".repeat(16),
            "f".repeat(32)
        );
        let without = Without {
            host: HostName::try_from("h".repeat(64)).expect("not too long"),
            session: format!("{} 4194304.18446744073709551615 {ipv6}", "f".repeat(16)),
            since: Some(u64::MAX),
        };
        let text = ClaimText {
            host: "h".repeat(64),
            migrating: None,
            list_index: Some(" ".repeat(4096).into()),
            without: vec![without; MOST_NAMED + MOST_CARRIED + 1],
        };
        assert!((text.to_string().len() as u64) < LONGEST);
    }
}
