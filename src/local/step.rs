//! Whether this backend is in step: its record compared with the claim in INDEX. Logins, the plugin
//! and `nfs-hostchange status` judge by this alone.

use std::fmt;

use crate::local::directory::{DirectoryError, ListIndexDirectory};
use crate::local::record::Record;
use crate::nfs::directory::{IndexDirectory, Look, SharedListIndex};

/// What the record here is to the claim in INDEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are equal: the list index is the user's present one.
    Equal,
    /// Somebody has claimed the user since.
    Behind,
    /// Nobody has, but somebody has written to the list index in INDEX.
    OtherListIndex,
    /// There is no record, or an empty one.
    NoRecord,
    /// No backend has claimed the user.
    NoClaim,
}

impl Comparison {
    /// Compares the record of this backend with what a look at INDEX showed.
    #[must_use]
    pub fn of(look: &Look, record: Option<Record>) -> Self {
        match (Record::of(look), record) {
            (None, _) => Self::NoClaim,
            (_, None) => Self::NoRecord,
            (Some(now), Some(recorded)) if now == recorded => Self::Equal,
            (Some(Record { claim, index, .. }), Some(recorded))
                if (claim, index) == (recorded.claim, recorded.index) =>
            {
                Self::OtherListIndex
            }
            _ => Self::Behind,
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
            Self::NoRecord => "there is no record here: the next login begins a new list index",
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
    use crate::nfs::identity::{Identity, Version};

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
