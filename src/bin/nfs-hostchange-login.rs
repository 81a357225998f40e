//! The wrapper: Dovecot's post-login script.

fn main() {}
