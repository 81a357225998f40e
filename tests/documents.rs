//! What the documents name is there: files, tests, and the pages that they link to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Markdown page for people.
fn pages() -> Vec<PathBuf> {
    let in_directory = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("it can be listed");
        let paths = entries.map(|entry| entry.expect("it can be listed").path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .collect()
    };
    let mut pages = in_directory(root());
    pages.extend(in_directory(&root().join("docs")));
    pages.push(root().join("tests/README.md"));
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// What stands between `begin` and `end`, as often as it does.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(begin).skip(1);
    parts
        .filter_map(|part| part.split_once(end))
        .map(|(inside, _)| inside)
        .collect()
}

/// A heading as a link addresses it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let text: String = heading.trim_start_matches('#').trim().chars().collect();
    let text = text.to_lowercase();
    text.chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in between(&read(&page), "](", ")") {
            if link.starts_with("http") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().expect("in a directory").join(path),
            };
            let leads = target.exists()
                && (heading.is_empty()
                    || read(&target)
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == heading));
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// One file for each rule, so that a reader finds it within a minute.
#[test]
fn every_source_file_that_the_documents_name_exists() {
    let mut missing = BTreeSet::new();
    for page in pages() {
        let text = read(&page);
        let words = text.split(|c: char| c.is_whitespace() || "`|(),;*".contains(c));
        for word in words {
            let path = word.trim_end_matches(['.', ':']);
            let is_ours = ["src/", "packaging/", "tests/"]
                .iter()
                .any(|room| path.starts_with(room));
            if is_ours && !path.contains(['*', '<']) && !root().join(path).exists() {
                missing.insert(format!("{}: {path}", page.display()));
            }
        }
    }
    let missing: Vec<_> = missing.into_iter().collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Every test of which docs/security.md says that it shows what happens.
#[test]
fn every_test_that_the_attacks_name_exists() {
    let mut tests = String::new();
    for directory in ["tests", "tests/fuzz", "tests/reliability", "tests/model"] {
        for entry in fs::read_dir(root().join(directory)).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&read(&path));
            }
        }
    }
    let security = read(&root().join("docs/security.md"));
    let rows = security.lines().filter(|line| line.starts_with('|'));
    let mut named = 0;
    let mut missing = Vec::new();
    for row in rows {
        let shown_by = row.trim_end_matches([' ', '|']).rsplit('|').next();
        let words = shown_by.unwrap_or_default().split([' ', ',', ';', ':']);
        // A test's name is a sentence.
        for name in words.filter(|word| word.matches('_').count() > 2 && !word.starts_with('.')) {
            named += 1;
            if !tests.contains(&format!("fn {name}(")) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(named > 40, "only {named} tests are named");
}

/// All string literals of the sources, with the lines that were broken in them put together again.
fn messages() -> String {
    fn collect(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                collect(&path, into);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "rs" || extension == "c")
            {
                into.push_str(&read(&path));
            }
        }
    }
    let mut sources = String::new();
    collect(&root().join("src"), &mut sources);
    let mut together = String::new();
    for line in sources.lines() {
        let line = line.trim();
        match line.strip_suffix('\\') {
            Some(beginning) => together.push_str(beginning),
            None => {
                together.push_str(line);
                together.push('\n');
            }
        }
    }
    // C puts neighbouring literals together.
    together.replace("\"\n\"", "")
}

/// The words of libc that a message ends with.
const ERRNOS: [&str; 6] = [
    "Permission denied",
    "Stale file handle",
    "Input/output error",
    "No space left on device",
    "Read-only file system",
    "Disk quota exceeded",
];

#[test]
fn every_log_line_that_the_documents_explain_can_be_logged() {
    let messages = messages();
    let mut missing = Vec::new();
    let mut looked_for = 0;
    for (page, heading) in [
        ("docs/monitoring.md", "## Log lines"),
        (
            "docs/troubleshooting.md",
            "## The log says \"session without list index: ...\"",
        ),
    ] {
        let text = read(&root().join(page));
        let section = text.split(heading).nth(1).expect("the heading is there");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let lines = rows.flat_map(|row| {
            let first = row.split(" | ").next().unwrap_or_default();
            first.split('`').skip(1).step_by(2)
        });
        for line in lines {
            // What stands for a name or a number.
            let words: Vec<_> = line
                .split(' ')
                .map(|word| match word.trim_end_matches([':', ',']) {
                    "A" | "B" | "N" | "M" | "INDEX" | "..." => "\0",
                    _ => word,
                })
                .collect();
            let line = words.join(" ").replace("...", "\0");
            for part in line.split(['\0', ';', ':']) {
                let part = part.trim_matches([' ', ':']);
                if part.len() < 8 || ERRNOS.contains(&part) {
                    continue;
                }
                looked_for += 1;
                if !messages.contains(part) {
                    missing.push(format!("{page}: {part}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(looked_for > 25, "only {looked_for} parts of lines");
}
