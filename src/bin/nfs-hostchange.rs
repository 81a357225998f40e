//! The administrator's command.

fn main() {}
