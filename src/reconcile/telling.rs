//! What the administrator reads of what was done.

use std::time::SystemTime;

use crate::local::files::Size;
use crate::names::SHARED_LOG;
use crate::reconcile::migration::{Originals, Owner};
use crate::reconcile::{Difference, Reconciliation};

/// A claim younger than this, in seconds, means that the user alternates between backends.
const ALTERNATES: i64 = 60;

impl Reconciliation<'_> {
    /// A new list index was begun, in place of one of this size.
    #[cold]
    pub(super) fn tell(
        &self,
        difference: &Difference<'_>,
        deleted: Size,
        taken: Option<&Originals>,
    ) {
        let list_index = self.list_index_directory.display();
        let index = self.index.path.display();
        if let Some(originals) = taken {
            self.events.info(format_args!(
                "migrated: moved {} of the list index from {index} to {list_index}",
                originals.size
            ));
        }
        let why = self.why(difference);
        self.events.info(format_args!(
            "{why}: deleted {deleted} of the list index in {list_index}, claimed {index}"
        ));
        let age = (difference.look.claim).map(|claim| claim.age_at(SystemTime::now()));
        let from = (difference.standing.as_ref()).map_or("", |standing| &standing.host);
        if age.is_some_and(|age| age.abs() < ALTERNATES) && from != self.host().as_str() {
            self.events.warning(format_args!(
                "user alternates between backends: {from} claimed {index} less than a minute ago; \
                 the proxy in front must send a user to one backend at a time"
            ));
        }
        self.tell_of_foreign(difference);
    }

    /// Dovecot has forgotten what was in the list index.
    #[cold]
    pub(super) fn tell_of_open(&self, difference: &Difference<'_>) {
        self.events.info(format_args!(
            "{}: cleared the list index in {}, claimed {}",
            self.why(difference),
            self.list_index_directory.display(),
            self.index.path.display()
        ));
        self.tell_of_foreign(difference);
    }

    fn why(&self, difference: &Difference<'_>) -> String {
        let host = self.host();
        match &difference.standing {
            None => "first login on any backend".to_owned(),
            Some(standing) if standing.host == host.as_str() => {
                format!("no record of the last login on {host}")
            }
            Some(standing) => format!("host changed from {} to {host}", standing.host),
        }
    }

    fn tell_of_foreign(&self, difference: &Difference<'_>) {
        let log = difference.index.path_of(SHARED_LOG);
        match &difference.shared {
            Some(Owner::Other) => self.events.warning(format_args!(
                "{} is left alone: another namespace, another user or a backend without this program \
                 writes to it; give that one an INDEX or a LISTINDEX of its own, or delete the file if \
                 nobody writes to it",
                log.display()
            )),
            Some(Owner::Map(sign)) => self.events.warning(format_args!(
                "{} is left alone: because of {} there it may be the only map of a namespace with \
                 LAYOUT=index; give that namespace an INDEX of its own. Without that file its folders \
                 lose their names",
                log.display(),
                sign.to_string_lossy()
            )),
            Some(Owner::User(_) | Owner::Outdated(_)) | None => {}
        }
    }
}
