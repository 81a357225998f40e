//! /etc/passwd and /etc/group, read as files.
//!
//! The wrapper is a static program, and those cannot load NSS modules (nsswitch.conf(5)); ids from
//! other sources reach it as numbers through the userdb.

use crate::decimal::decimal;

/// Home directory of the system user `name`.
pub fn home_of(name: &[u8]) -> Option<Vec<u8>> {
    entry("/etc/passwd", name, |fields| Some(fields.get(5)?.to_vec()))
}

/// Uid of the system user `name`.
pub fn user_id(name: &str) -> Option<u32> {
    entry("/etc/passwd", name.as_bytes(), |fields| {
        decimal(fields.get(2)?)
    })
}

/// Gids of the groups that list `user` as a member.
pub fn groups_of(user: &[u8]) -> Vec<u32> {
    let file = std::fs::read("/etc/group").unwrap_or_default();
    lines(&file)
        .filter(|fields| {
            fields
                .get(3)
                .is_some_and(|members| members.split(|&byte| byte == b',').any(|name| name == user))
        })
        .filter_map(|fields| decimal(fields.get(2)?))
        .collect()
}

fn entry<T>(file: &str, name: &[u8], value: impl FnOnce(Vec<&[u8]>) -> Option<T>) -> Option<T> {
    let file = std::fs::read(file).ok()?;
    value(lines(&file).find(|fields| fields.first() == Some(&name))?)
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&byte| byte == b'\n')
        .map(|line| line.split(|&byte| byte == b':').collect())
}
