//! What the administrator reads of what was done.

use std::time::SystemTime;

use crate::local::files::Size;
use crate::names::SHARED_LOG;
use crate::nfs::claim::ClaimText;
use crate::nfs::directory::{IndexDirectory, Look};
use crate::nfs::host::HostName;
use crate::reconcile::Reconciliation;
use crate::reconcile::migration::Originals;

/// A claim younger than this, in seconds, means that the user alternates between backends.
const ALTERNATES: i64 = 60;

impl Reconciliation<'_> {
    #[cold]
    pub(super) fn tell_of_foreign(&self, index: &IndexDirectory<'_>) {
        self.events.warning(format_args!(
            "{} is left alone: another namespace, another user or a backend without this program \
             writes to it; give that one an INDEX or a LISTINDEX of its own, or delete the file if nobody writes to it",
            index.path_of(SHARED_LOG).display()
        ));
    }

    #[cold]
    pub(super) fn tell(
        &self,
        host: &HostName,
        standing: Option<&ClaimText>,
        look: &Look,
        deleted: Size,
        taken: Option<&Originals>,
    ) {
        let list_index = self.list_index_directory.display();
        let index = self.index.path.display();
        let from = standing.map_or("unknown", |standing| &standing.host);
        if let Some(originals) = taken {
            self.events.info(format_args!(
                "migrated: moved {} of the list index from {index} to {list_index}",
                originals.size
            ));
        }
        let why = match look.claim {
            None => "first login on any backend".to_owned(),
            Some(_) if from == host.as_str() => {
                format!("no record of the last login on {host}")
            }
            Some(_) => format!("host changed from {from} to {host}"),
        };
        self.events.info(format_args!(
            "{why}: deleted {deleted} of the list index in {list_index}, claimed {index}"
        ));
        let age = look.claim.map(|claim| claim.age_at(SystemTime::now()));
        if age.is_some_and(|age| age.abs() < ALTERNATES) && from != host.as_str() {
            self.events.warning(format_args!(
                "user alternates between backends: {from} claimed {index} less than a minute ago; \
                 the proxy in front must send a user to one backend at a time"
            ));
        }
    }

    pub(super) fn tell_of_open(&self, host: &HostName, standing: Option<&ClaimText>, look: &Look) {
        let why = match (look.claim, standing) {
            (None, _) => "first session on any backend".to_owned(),
            (_, Some(standing)) if standing.host != host.as_str() => {
                format!("host changed from {} to {host}", standing.host)
            }
            _ => format!("no record of the last session on {host}"),
        };
        self.events.info(format_args!(
            "{why}: cleared the list index in {}, claimed {}",
            self.list_index_directory.display(),
            self.index.path.display()
        ));
    }
}
