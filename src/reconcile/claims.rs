//! What a claim says, and what the one that stands says of this backend.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::files;
use crate::local::lock::{Exclusive, Kind, Lock, LockError, Shared};
use crate::local::session::{Session, State};
use crate::local::sign;
use crate::nfs::claim::{ClaimText, Without};
use crate::nfs::directory::Look;
use crate::nfs::identity::Version;
use crate::reconcile::outcome::Doubt;
use crate::reconcile::{Difference, Reconciliation};

/// A claim names this many sessions of one backend: a mailbox that many people share has hundreds. With
/// those that are carried on it is shorter than the longest that is read.
const MOST_NAMED: usize = 192;

/// A claim carries on so many of other backends' sessions, the latest. A backend that is gone never finds
/// its own over; and where there still is one, its process claims for it at its end all the same.
const MOST_CARRIED: usize = 64;

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
    pub(super) fn confirm_no_other_list_index(
        &self,
        lock: &Lock<'_, Exclusive>,
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
            Ok(directory) if lock.directory().is_same_as(&directory)? => {
                prefix != self.prefix && self.is_kept(lock, &prefix, look)
            }
            Ok(directory) => match Lock::<Shared>::acquire_existing(&directory) {
                Ok(lock) => self.is_kept(&lock, &prefix, look),
                Err(LockError::TimedOut(_)) => true,
                Err(_) => false,
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
        let directory = lock.directory();
        let record = lock.record(prefix, Some(&self.host()));
        record.is_some_and(|record| Some(record.claim) == look.claim)
            || files::is_in_use(directory, prefix)
            || sign::open_session(directory, Some(prefix)) != Ok(None)
    }

    /// Confirms that the claim that stands can be read. Another user may have made it, with a list index of
    /// his own, which would not learn what is done with this one.
    pub(super) fn confirm_readable(&self, difference: &Difference<'_>) -> Result<(), Doubt> {
        let index = &difference.index;
        match &difference.standing {
            Some(standing) if standing.host.is_empty() => {
                Err(Doubt::UnreadableClaim(index.path_of(index.claim_name())))
            }
            _ => Ok(()),
        }
    }

    /// The sessions that the next claim must name: `session`, and of those that the standing claim names
    /// other backends' and the ones here that are not over.
    fn carried_on(&self, standing: Option<&ClaimText>, session: Option<Session>) -> Vec<Without> {
        let host = self.host();
        let mut carried: Vec<_> = standing
            .into_iter()
            .flat_map(|standing| &standing.without)
            .filter(|without| without.host != host || is_still_open(without))
            .cloned()
            .collect();
        let others = carried.iter().filter(|without| without.host != host);
        let mut too_many = others.count().saturating_sub(MOST_CARRIED);
        carried.retain(|without| {
            let goes = too_many > 0 && without.host != host;
            too_many -= usize::from(goes);
            !goes
        });
        if let Some(session) = session {
            let here = carried.iter().filter(|without| without.host == host);
            let session = if here.count() < MOST_NAMED {
                session.to_string()
            } else {
                // Too many to name each: this one ends with the next boot of the host.
                session.anonymous().to_string()
            };
            let named = Without { host, session };
            if !carried.contains(&named) {
                carried.push(named);
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
        if named.any(|without| without.host == host && is_still_open(without)) {
            return Err(Doubt::OpenSession);
        }
        Ok(())
    }
}

/// Whether a session of this backend's that a claim names is not over.
fn is_still_open(without: &Without) -> bool {
    let session = without.session.parse().ok();
    let session = session.or_else(|| Session::of_boot(&without.session));
    session.is_none_or(|session| session.state() != State::Over)
}
