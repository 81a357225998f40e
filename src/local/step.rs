//! Whether this backend is in step: its record compared with the claim in INDEX. Logins, the plugin
//! and `nfs-hostchange status` judge by this alone.

use std::fmt;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::record::{Record, Shared};
use crate::nfs::directory::{IndexDirectory, Look, SharedListIndex};
use crate::nfs::identity::Version;

/// What the record here is to the claim in INDEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal: the list index is the user's present one.
    Equal,
    /// Somebody has claimed the user since.
    Behind,
    /// Nobody has, but somebody has written to the list index in INDEX.
    OtherListIndex,
    /// Nobody has, but the list index that was moved here from INDEX, in this version, may still be
    /// there, too.
    Unfinished(Version),
    /// There is no record, or an empty one.
    NoRecord,
    /// No backend has claimed the user.
    NoClaim,
}

impl Comparison {
    /// Compares the record of this backend with what a look at INDEX showed.
    #[must_use]
    pub fn of(look: &Look, record: Option<Record>) -> Self {
        let (now, recorded) = match (Record::of(look), record) {
            (None, _) => return Self::NoClaim,
            (_, None) => return Self::NoRecord,
            (Some(now), Some(recorded)) => (now, recorded),
        };
        if (now.claim, now.index) != (recorded.claim, recorded.index) {
            return Self::Behind;
        }
        match (recorded.shared, look.shared_list_index) {
            (Shared::Moved(log), SharedListIndex::Ignored) => Self::Unfinished(log),
            (Shared::Moved(log), SharedListIndex::Present(there)) if there == log => {
                Self::Unfinished(log)
            }
            (Shared::Moved(_), SharedListIndex::None | SharedListIndex::Litter) => Self::Equal,
            (shared, _) if shared == now.shared => Self::Equal,
            _ => Self::OtherListIndex,
        }
    }

    /// Whether a login finds nothing to do, neither here nor in INDEX.
    #[must_use]
    pub fn is_settled(self, look: &Look) -> bool {
        self == Self::Equal && look.shared_list_index != SharedListIndex::Litter
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "the record here equals the claim in INDEX",
            Self::Behind => {
                "the claim in INDEX was made after the record here: another backend has served \
                 the user since"
            }
            Self::OtherListIndex => {
                "the list index in INDEX was written to since: another user, or a backend without \
                 this program, changes the mail"
            }
            Self::Unfinished(_) => {
                "the record here equals the claim in INDEX, and a migration is to be finished by the \
                 next login"
            }
            Self::NoRecord => "there is no record here: the next login starts a new list index",
            Self::NoClaim => "no backend has claimed the user",
        })
    }
}

/// Whether LISTINDEX is INDEX by another path: then it is shared by all backends, and nothing is
/// local.
///
/// # Errors
/// If it is not known.
pub fn is_index(
    directory: &ListIndexDirectory,
    index: &IndexDirectory<'_>,
) -> Result<bool, DirectoryError> {
    Ok(directory.device_and_inode()? == index.device_and_inode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs::identity::Identity;

    #[test]
    fn only_an_equal_record_is_in_step() {
        let identity = |nanoseconds| Identity {
            inode: 7,
            seconds: 8,
            nanoseconds,
        };
        let look = |claim| Look {
            index: 5,
            claim,
            shared_list_index: SharedListIndex::None,
        };
        let claimed = look(Some(identity(9)));
        let record = Record::of(&claimed);
        let foreign = SharedListIndex::Present(Version {
            identity: identity(1),
            size: 100,
        });
        let litter = SharedListIndex::Litter;
        let beside = |shared_list_index| Look {
            shared_list_index,
            ..claimed
        };
        let log = Version {
            identity: identity(1),
            size: 100,
        };
        let moved = record.map(|record| Record {
            shared: Shared::Moved(log),
            ..record
        });
        let written = SharedListIndex::Present(Version { size: 101, ..log });
        for (look, record, expected, is_settled) in [
            (claimed, record, Comparison::Equal, true),
            (look(Some(identity(10))), record, Comparison::Behind, false),
            (
                Look {
                    index: 6,
                    ..claimed
                },
                record,
                Comparison::Behind,
                false,
            ),
            (claimed, None, Comparison::NoRecord, false),
            (look(None), record, Comparison::NoClaim, false),
            (look(None), None, Comparison::NoClaim, false),
            // Somebody began to use a list index in INDEX.
            (
                Look {
                    shared_list_index: foreign,
                    ..claimed
                },
                record,
                Comparison::OtherListIndex,
                false,
            ),
            // Where nobody looks, the originals of a migration may still be there.
            (
                beside(SharedListIndex::Ignored),
                moved,
                Comparison::Unfinished(log),
                false,
            ),
            (beside(foreign), moved, Comparison::Unfinished(log), false),
            (beside(written), moved, Comparison::OtherListIndex, false),
            (claimed, moved, Comparison::Equal, true),
            (beside(litter), moved, Comparison::Equal, false),
            (
                beside(SharedListIndex::Ignored),
                record,
                Comparison::Equal,
                true,
            ),
            // What an interrupted migration left has to be deleted, but the record counts.
            (
                Look {
                    shared_list_index: litter,
                    ..claimed
                },
                record,
                Comparison::Equal,
                false,
            ),
        ] {
            let compared = Comparison::of(&look, record);
            assert_eq!(compared, expected, "{look:?}");
            assert_eq!(compared.is_settled(&look), is_settled, "{look:?}");
        }
    }
}
