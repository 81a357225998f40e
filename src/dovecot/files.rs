//! Where a setting is written down: Dovecot's configuration files, read line by line.
//!
//! doveconf prints values, but not where they are set. This only finds the line to look at, and never decides
//! what a value is.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Place {
    /// What is written there.
    pub fn text(&self) -> String {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let line = text.lines().nth(self.line - 1);
        line.unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One line that sets something or begins a block.
#[derive(Debug, Clone)]
struct Entry {
    /// `service/imap/executable`; unnamed blocks are numbered as `doveconf -S` does.
    key: String,
    place: Place,
}

/// The main file and all that it includes.
#[derive(Debug, Clone)]
pub struct Files {
    main: PathBuf,
    all: Vec<PathBuf>,
    entries: Vec<Entry>,
}

/// How deeply files may include each other.
const DEPTH: usize = 16;

impl Files {
    /// Reads what can be read.
    pub fn read(main: &Path) -> Self {
        let mut files = Self {
            main: main.to_owned(),
            all: Vec::new(),
            entries: Vec::new(),
        };
        files.read_one(main, &mut Vec::new(), &mut [0; 3], 0);
        files
    }

    /// The main file.
    pub fn main(&self) -> &Path {
        &self.main
    }

    /// Where a setting is written down; of several places the last, which counts.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.places(key).pop()
    }

    /// All places where a setting is written down, in Dovecot's order.
    pub fn places(&self, key: &str) -> Vec<Place> {
        let same = self.entries.iter().filter(|entry| entry.key == key);
        same.map(|entry| entry.place.clone()).collect()
    }

    /// When the youngest of the files was changed.
    pub fn last_change(&self) -> Option<(&Path, SystemTime)> {
        let time = |path: &Path| fs::metadata(path).ok()?.modified().ok();
        self.all
            .iter()
            .filter_map(|path| Some((path.as_path(), time(path)?)))
            .max_by_key(|&(_, time)| time)
    }

    fn read_one(
        &mut self,
        path: &Path,
        blocks: &mut Vec<String>,
        unnamed: &mut [usize; 3],
        depth: usize,
    ) {
        let Ok(text) = fs::read_to_string(path) else {
            return;
        };
        if depth > DEPTH {
            return;
        }
        self.all.push(path.to_owned());
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            let place = Place {
                file: path.to_owned(),
                line: number,
            };
            if let Some(pattern) = line
                .strip_prefix("!include_try ")
                .or(line.strip_prefix("!include "))
            {
                let directory = path.parent().unwrap_or(Path::new("/"));
                for file in matching(&directory.join(pattern.trim())) {
                    self.read_one(&file, blocks, unnamed, depth + 1);
                }
            } else if line.starts_with('#') || line.is_empty() {
            } else if line.starts_with('}') {
                blocks.pop();
            } else if let Some((block, _)) = line.split_once('{').filter(|_| !line.contains('=')) {
                blocks.push(name_of(block, unnamed));
                self.entries.push(Entry {
                    key: blocks.join("/"),
                    place,
                });
                if line.ends_with('}') {
                    blocks.pop();
                }
            } else if let Some((key, _)) = line.split_once('=') {
                blocks.push(key.trim().to_owned());
                self.entries.push(Entry {
                    key: blocks.join("/"),
                    place,
                });
                blocks.pop();
            }
        }
    }
}

fn name_of(block: &str, unnamed: &mut [usize; 3]) -> String {
    let mut words = block.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let name = words.collect::<Vec<_>>().join(" ");
    let mut numbered = |kind: &str, counter: usize| {
        unnamed[counter] += 1;
        format!("{kind}/{}", unnamed[counter] - 1)
    };
    match (kind, name.trim_matches('"')) {
        // Dovecot 2.3 numbers all namespaces, and calls those with a name by it.
        ("namespace", "") => numbered(kind, 0),
        ("namespace", name) => {
            unnamed[0] += 1;
            format!("{kind}/{name}")
        }
        ("userdb", "") => numbered(kind, 1),
        ("passdb", "") => numbered(kind, 2),
        (kind, "") => kind.to_owned(),
        (kind, name) => format!("{kind}/{}", name.replace('/', "\\s")),
    }
}

/// The files that an include names; only its last part can be a pattern.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    let Some((before, after)) = name.split_once('*') else {
        return vec![pattern.to_owned()];
    };
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}
