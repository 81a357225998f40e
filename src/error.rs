//! Errors that are made of others.

/// Makes an error of each of these parts, as one variant of the whole.
macro_rules! from_errors {
    ($whole:ident: $($part:ident => $variant:ident),+) => {
        $(impl From<$part> for $whole {
            fn from(error: $part) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

pub(crate) use from_errors;
