//! packaging/install.sh, as an installation by hand runs it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed in the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What packaging/build.sh makes, as far as the script looks at it.
fn build(dist: &Path, version: &str) {
    fs::create_dir_all(dist.join("generated")).expect("mkdir");
    for name in [
        "nfs-hostchange-login",
        "nfs-hostchange",
        "generated/nfs-hostchange.8",
        "generated/nfs-hostchange.bash",
        "generated/_nfs-hostchange",
        "generated/nfs-hostchange.fish",
    ] {
        fs::write(dist.join(name), version).expect("write");
    }
}

fn install(scratch: &Path) {
    let output = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/install.sh"))
        .env("DIST", scratch.join("dist"))
        .env("DESTDIR", scratch.join("root"))
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_second_time_everything_is_replaced_but_what_the_administrator_has_written() {
    let scratch = nix::unistd::mkdtemp("/tmp/nfs-hostchange-test.XXXXXX").expect("mkdtemp");
    let scratch = Scratch(scratch);
    let (dist, root) = (scratch.0.join("dist"), scratch.0.join("root"));
    build(&dist, "the first");
    install(&scratch.0);
    let settings = [
        "etc/dovecot/nfs-hostchange.toml",
        "etc/default/nfs-hostchange",
    ];
    for settings in settings {
        fs::write(root.join(settings), "the administrator's").expect("it is there");
    }
    let wrapper = root.join("usr/lib/dovecot/nfs-hostchange-login");
    let mut open = File::open(&wrapper).expect("it is there");

    build(&dist, "the second");
    install(&scratch.0);

    for settings in settings {
        let text = fs::read_to_string(root.join(settings)).expect("it is there");
        assert_eq!(text, "the administrator's", "{settings}");
    }
    let command = root.join("usr/bin/nfs-hostchange");
    let link = root.join("usr/lib/dovecot/nfs-hostchange");
    for program in [&wrapper, &command, &link] {
        let text = fs::read_to_string(program).expect("it is there");
        assert_eq!(text, "the second", "{program:?}");
        let mode = fs::metadata(program).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o755, "{program:?}");
    }
    // Whoever is logging in executes the one or the other.
    let mut text = String::new();
    open.read_to_string(&mut text).expect("it is open");
    assert_eq!(text, "the first");
    let left: Vec<_> = fs::read_dir(root.join("usr/lib/dovecot"))
        .expect("it is there")
        .map(|entry| entry.expect("readdir").file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
