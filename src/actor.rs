//! Whose rights the work on files is done with.

use std::fmt;

use nix::errno::Errno;

use crate::system::credentials::{Assumed, GroupId, Identity, UserId, effective_user};

/// Why the user's rights cannot be taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorError {
    /// The uid is 0: nothing is ever done to list indexes as root.
    Root,
    /// The kernel refused the change of ids.
    Refused(Errno),
}

impl std::error::Error for ActorError {}

impl fmt::Display for ActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the user's uid is 0"),
            Self::Refused(errno) => {
                write!(f, "cannot take on the user's ids: {}", errno.desc())
            }
        }
    }
}

/// The user whose rights the work is done with; taken on for a while if the process is root's.
#[derive(Debug)]
pub struct Actor {
    user: UserId,
    /// Only if the process was started as root.
    root: Option<Root>,
}

/// The rights of root that are put aside meanwhile.
#[derive(Debug)]
pub struct Root {
    assumed: Assumed,
    /// The user's primary group.
    pub group: GroupId,
}

impl Root {
    /// Runs `work` as root.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.assumed.suspended(work)
    }
}

impl Actor {
    /// The user of this thread.
    ///
    /// # Errors
    /// If that is root.
    pub fn current() -> Result<Self, ActorError> {
        match effective_user() {
            UserId(0) => Err(ActorError::Root),
            user => Ok(Self { user, root: None }),
        }
    }

    /// Takes on the ids of `identity`, which needs root; from here on, files are worked on with
    /// that user's rights until the actor is dropped.
    ///
    /// # Errors
    /// If the user is root, or the kernel refuses.
    pub fn assume(identity: Identity) -> Result<Self, ActorError> {
        let Identity { user, group, .. } = identity;
        if user.0 == 0 {
            return Err(ActorError::Root);
        }
        let assumed = Assumed::new(identity).map_err(ActorError::Refused)?;
        Ok(Self {
            user,
            root: Some(Root { assumed, group }),
        })
    }

    /// The user's uid: what the LISTINDEX directory must belong to.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Root's rights, if the process was started with them.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }
}
