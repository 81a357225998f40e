//! With whose rights the work on the files is done.

use std::fmt;

use nix::errno::Errno;

use crate::system::credentials::{Assumed, GroupId, Identity, UserId, effective_user};

/// Why nobody can be become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorError {
    /// The uid is 0: list indexes are never worked on as root.
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

/// Who does the work: the mail user, taken on for a while if the process was started as root.
#[derive(Debug)]
pub struct Actor {
    user: UserId,
    /// Only if the process is root underneath.
    root: Option<Root>,
}

/// Root underneath the user.
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
    /// Whoever this thread is.
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

    /// Root underneath, if the process was started as that.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }
}
