//! Real Dovecots of both versions: the machine's own, and for the other version that of a root
//! which `tests/setup.sh roots` made.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::scratch::{Run, Scratch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2_3,
    V2_4,
}

impl Version {
    /// What a configuration file begins with.
    pub fn first_lines(self) -> &'static str {
        match self {
            Version::V2_3 => "",
            Version::V2_4 => "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Dovecot {
    pub version: Version,
    root: Option<&'static str>,
}

impl Dovecot {
    /// The machine's own.
    pub fn machine() -> Dovecot {
        static VERSION: OnceLock<Version> = OnceLock::new();
        let version = *VERSION.get_or_init(|| {
            let run = Run::of(Command::new("dovecot").arg("--version"));
            match run.stdout.get(..4) {
                Some("2.3.") => Version::V2_3,
                Some("2.4.") => Version::V2_4,
                _ => panic!("no Dovecot 2.3 or 2.4: {run:?}"),
            }
        });
        Dovecot {
            version,
            root: None,
        }
    }

    /// One of each version. The other one's takes root.
    pub fn both() -> [Dovecot; 2] {
        let machine = Dovecot::machine();
        let (version, root) = match machine.version {
            Version::V2_3 => (Version::V2_4, "trixie"),
            Version::V2_4 => (Version::V2_3, "bookworm"),
        };
        let other = Dovecot {
            version,
            root: Some(root),
        };
        let place = other.place("/");
        assert!(
            place.is_dir(),
            "there is no {}; run tests/setup.sh roots",
            place.display()
        );
        [machine, other]
    }

    /// Where a file of its system is in this one.
    pub fn place(&self, path: &str) -> PathBuf {
        let Some(root) = self.root else {
            return PathBuf::from(path);
        };
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache =
            cache.unwrap_or_else(|| Path::new(&env::var_os("HOME").expect("HOME")).join(".cache"));
        let roots = cache.join("nfs-hostchange/roots");
        roots.join(root).join(path.trim_start_matches('/'))
    }

    /// A program of its system. It sees this one's /dev, /proc and /tmp.
    pub fn command(&self, program: &str) -> Command {
        let Some(root) = self.root else {
            return Command::new(program);
        };
        let mut command = Command::new(IN_ROOT);
        command.args([root, program]);
        command
    }

    /// From now on, programs that look in `scratch` first ask this one.
    pub fn put_into(&self, scratch: &Scratch) {
        let Some(root) = self.root else {
            return;
        };
        for program in ["doveconf", "doveadm"] {
            let line = format!("exec '{IN_ROOT}' {root} {program} \"$@\"");
            scratch.script(program, &line);
        }
    }
}

const IN_ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lib/in-root.sh");

/// Where users' mail is, below `~/mdbox` or the like: in either version's words. `@USER@` is the
/// user and `@HASH@` one of 256 values for him.
#[derive(Clone, Debug)]
pub struct Location {
    pub driver: &'static str,
    pub path: &'static str,
    pub index: Option<String>,
    pub list_index: Option<String>,
}

impl Location {
    /// With that LISTINDEX, and nothing else that is unusual.
    pub fn new(list_index: &str) -> Location {
        Location {
            driver: "mdbox",
            path: "~/mdbox",
            index: None,
            list_index: Some(list_index.to_owned()),
        }
    }

    /// The settings of `version`, which are the fields of a userdb too.
    pub fn fields(&self, version: Version) -> Vec<(&'static str, String)> {
        let (driver, path) = (self.driver, self.path);
        let (index, list_index) = (self.index.as_deref(), self.list_index.as_deref());
        match version {
            Version::V2_3 => {
                let keys = [("INDEX", index), ("LISTINDEX", list_index)];
                let mut location = format!("{driver}:{path}");
                for (key, value) in keys {
                    if let Some(value) = value {
                        location += &format!(":{key}={value}");
                    }
                }
                let location = location.replace("@HASH@", "%2.256Nu");
                vec![("mail_location", location.replace("@USER@", "%u"))]
            }
            Version::V2_4 => {
                // Without blanks, which end a field in a password file.
                const HASH: &str = "%{user|md5|substr(0,8)%256|hex(2)}";
                let fields = [
                    ("mail_driver", Some(driver)),
                    ("mail_path", Some(path)),
                    ("mail_index_path", index),
                    ("mailbox_list_index_prefix", list_index),
                ];
                let fields = fields.into_iter().filter_map(|(name, value)| {
                    let value = value?.replace("@HASH@", HASH);
                    Some((name, value.replace("@USER@", "%{user}")))
                });
                fields.collect()
            }
        }
    }

    /// Lines of dovecot.conf.
    pub fn lines(&self, version: Version) -> String {
        let fields = self.fields(version).into_iter();
        fields
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect()
    }
}
