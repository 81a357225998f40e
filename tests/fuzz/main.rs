//! The short run of the fuzzers: the corpus, what real Dovecot was asked, and a number of changes
//! to both that are the same in each run. The long one is tests/fuzz.sh.

mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing takes so long, not even in a build without optimization on a busy machine.
const HANGS: Duration = Duration::from_secs(60);

/// Xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The words of libFuzzer's dictionary: one in each line, quoted.
fn words() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(directory().join("dictionary")).expect("it is there");
    text.lines()
        .map(|line| {
            let quoted = line
                .strip_prefix('"')
                .and_then(|line| line.strip_suffix('"'));
            unescaped(quoted.expect("a quoted word"))
        })
        .collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        if let Some(hex) = escape.strip_prefix('x') {
            bytes.push(u8::from_str_radix(&hex[..2], 16).expect("two digits"));
            rest = &hex[2..];
        } else {
            bytes.push(escape.as_bytes()[0]);
            rest = &escape[1..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The corpus of a target, and what real Dovecot was asked of the same kind.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let corpus = directory().join("corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(corpus)
        .expect("each target has a corpus")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    let mut inputs: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).expect("it can be read"))
        .collect();
    let oracle = match target {
        "location" => include_str!("../oracle/paths-2.3.jsonl"),
        "age" => include_str!("../oracle/times-2.3.jsonl"),
        _ => "",
    };
    inputs.extend(oracle.lines().map(|row| {
        let row: Value = serde_json::from_str(row).expect("the oracle is JSON");
        let text = |field: &str| row[field].as_str().unwrap_or_default();
        match target {
            "age" => text("input").into(),
            _ => [text("user"), text("home"), text("expanded")]
                .join("\0")
                .into(),
        }
    }));
    inputs
}

fn changed(inputs: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.pick(inputs).clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(8)).min(input.len());
        match random.below(7) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, random.below(256) as u8),
            2 if at < end => input[at] ^= 1 << random.below(8),
            3 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            4 => {
                let other = random.pick(inputs);
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => drop(input.splice(at..end, random.pick(words).iter().copied())),
        }
    }
    input.truncate(2048);
    input
}

fn run(name: &str, target: fn(&[u8]), changes: usize) {
    let (inputs, words) = (inputs(name), words());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let changed = (0..changes).map(|_| changed(&inputs, &words, &mut random));
    let began = Instant::now();
    for input in inputs.iter().cloned().chain(changed) {
        let started = Instant::now();
        let ended = catch_unwind(|| target(&input));
        assert!(ended.is_ok(), "{name}: \"{}\"", input.escape_ascii());
        assert!(
            started.elapsed() < HANGS,
            "{name}: \"{}\"",
            input.escape_ascii()
        );
    }
    println!(
        "{name}: {} inputs and {changes} changes, {:.1?}",
        inputs.len(),
        began.elapsed()
    );
}

#[test]
fn no_user_home_or_location_leads_out_of_where_dovecot_goes() {
    run("location", targets::location, 5_000);
}

#[test]
fn no_configuration_and_environment_of_a_login_make_it_go_elsewhere() {
    run("login", targets::login, 20_000);
}

#[test]
fn a_record_is_whole_or_none() {
    run("record", targets::record, 20_000);
}

#[test]
fn any_claim_can_be_read() {
    run("claim", targets::claim, 20_000);
}

#[test]
fn a_mistake_in_the_configuration_is_shown_where_it_is() {
    run("configuration", targets::configuration, 20_000);
}

#[test]
fn an_age_means_the_same_however_it_is_written() {
    run("age", targets::age, 20_000);
}

#[test]
fn a_command_line_is_handed_on_as_it_is() {
    run("command_line", targets::command_line, 20_000);
}
