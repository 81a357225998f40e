//! Alarms about the file system of list indexes before it is full, because only the session itself can
//! see what happens then.

use std::path::Path;

use indicatif::HumanBytes;

use crate::dovecot::master::{BASE_DIR, Master, memory_limit};
use crate::local::room::Room;
use crate::system::file_system::FileSystem;
use crate::usercache::tree::Tree;

/// Alarms about the file system of `tree`, whose root is `root`: one line each.
pub fn alarms(root: &Path, tree: &Tree) -> Vec<String> {
    match tree.room() {
        Ok((file_system, room)) => {
            let master = Master::find(Path::new(BASE_DIR));
            alarms_about(root, file_system, room, memory_limit(master))
        }
        Err(errno) => vec![format!(
            "{}: cannot tell how much room there is: {}",
            root.display(),
            errno.desc()
        )],
    }
}

fn alarms_about(
    root: &Path,
    file_system: FileSystem,
    room: Room,
    memory_limit: Option<u64>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let root = root.display();
    if room.is_short() {
        lines.push(format!(
            "{root} is nearly full: {room}. No new list index is started. Make it larger; if it was \
             full, run \"nfs-hostchange usercache forget {root}\""
        ));
    } else if room.is_getting_short() {
        lines.push(format!("{root} is getting full: {room}. Make it larger"));
    }
    let limit = memory_limit.filter(|&limit| {
        file_system == FileSystem::Memory && (room.bytes.total > limit || room.bytes.total == 0)
    });
    if let Some(limit) = limit {
        lines.push(format!(
            "{root} may take {} of memory, but Dovecot's service is killed at {}: make it smaller, or \
             the service's MemoryMax= larger",
            match room.bytes.total {
                0 => "all".to_owned(),
                bytes => HumanBytes(bytes).to_string(),
            },
            HumanBytes(limit)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{FileSystem, Path, Room, alarms_about};
    use crate::local::room::Share;

    fn alarms(total: u64, free: u64, limit: Option<u64>) -> Vec<String> {
        let room = Room {
            bytes: Share { total, free },
            files: Share {
                total: 100,
                free: 50,
            },
        };
        alarms_about(Path::new("/x"), FileSystem::Memory, room, limit)
    }

    #[test]
    fn a_tmpfs_that_fills_up_is_told_early() {
        assert_eq!(alarms(1000, 200, None), [""; 0]);
        assert!(alarms(1000, 199, None)[0].contains("getting full"));
        let full = &alarms(1000, 99, None)[0];
        assert!(full.contains("nearly full") && full.contains("usercache forget /x"));
    }

    #[test]
    fn a_tmpfs_that_may_take_more_than_the_service_is_told() {
        assert_eq!(alarms(1000, 900, Some(1000)), [""; 0]);
        assert!(alarms(1000, 900, Some(999))[0].contains("MemoryMax="));
        // Without a limit of its own.
        assert!(alarms(0, 0, Some(1 << 30))[0].contains("all of memory"));
        let disk = FileSystem::Disk;
        let room = Room {
            bytes: Share {
                total: 1000,
                free: 900,
            },
            files: Share { total: 0, free: 0 },
        };
        assert_eq!(alarms_about(Path::new("/x"), disk, room, Some(1)), [""; 0]);
    }
}
