//! One line per event, to syslog in the manner of Dovecot's own log.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};

use syslog::{LogFormat, Logger, LoggerBackend, Severity};

use crate::config::{Facility, LogSettings, Target};
use crate::event::{Events, Level};
use crate::system::descriptors::write_line_to_standard_error;
use crate::system::signals::WriteSignalsIgnored;

/// The name before each line.
const IDENT: &str = "nfs-hostchange";

/// A longer line is cut: syslog daemons drop or split them.
const LONGEST_LINE: usize = 2000;

/// Writes log lines about one user. Opens no socket before there is something to say.
#[derive(Debug)]
pub struct Log {
    settings: LogSettings,
    user: Vec<u8>,
}

impl Log {
    /// Lines about `user`, whose name may hold any bytes.
    pub fn new(user: &[u8]) -> Self {
        Self {
            settings: LogSettings::default(),
            user: user.to_vec(),
        }
    }

    /// Uses `settings` from now on.
    pub fn configure(&mut self, settings: LogSettings) {
        self.settings = settings;
    }

    /// The last line of a process that cannot execute its program: to syslog and to standard error.
    #[cold]
    pub fn fatal(&self, message: impl Display) {
        let line = one_line(format!("fatal: {message}").as_bytes());
        self.send(Level::Error, &line);
        write_line_to_standard_error(format!("{IDENT}: {line}").as_bytes());
    }

    /// Whether syslog took the line. A full or absent socket does not hold up the login, and a
    /// mistake in a library does not end it.
    fn send(&self, level: Level, line: &str) -> bool {
        let _ignored = WriteSignalsIgnored::new();
        catch_unwind(AssertUnwindSafe(|| {
            let mut logger = self.connect().ok()?;
            match level {
                Level::Error => logger.err(line),
                Level::Warning => logger.warning(line),
                Level::Info => logger.info(line),
            }
            .ok()
        }))
        .is_ok_and(|sent| sent.is_some())
    }

    fn connect(&self) -> std::io::Result<Logger<LoggerBackend, Line>> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect("/dev/log")?;
        Ok(Logger::new(
            LoggerBackend::Unix(socket),
            Line {
                facility: self.settings.facility,
            },
        ))
    }
}

impl Events for Log {
    #[cold]
    fn event(&self, level: Level, message: &dyn Display) {
        if level > self.settings.level {
            return;
        }
        let message = message.to_string();
        let line = [b"user=".as_slice(), &self.user, b": ", message.as_bytes()].concat();
        let line = one_line(&line);
        let sent = self.settings.target == Target::Syslog && self.send(level, &line);
        if !sent {
            write_line_to_standard_error(format!("{IDENT}: {line}").as_bytes());
        }
    }
}

/// `<priority>ident[pid]: message`, without a time stamp: the daemon puts its own (RFC 3164,
/// section 4.3.2), and the local time would cost reading the time zone's file.
#[derive(Debug, Clone)]
struct Line {
    facility: Facility,
}

impl<T: Display> LogFormat<T> for Line {
    fn format<W: Write>(
        &self,
        writer: &mut W,
        severity: Severity,
        message: T,
    ) -> syslog::Result<()> {
        let priority = ((self.facility as u8) << 3) | severity as u8;
        let pid = std::process::id();
        write!(writer, "<{priority}>{IDENT}[{pid}]: {message}").map_err(syslog::Error::Write)
    }
}

/// Whether a character may mislead a terminal or a reader of the log: control characters, line
/// separators, and those that change the direction of writing.
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Text with bytes from outside, fit for one log line: control characters, backslashes and bytes
/// that are not UTF-8 become escapes, so that a user name or a path cannot forge a line.
pub fn one_line(text: &[u8]) -> String {
    let mut line = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_misleading(character) || character == '\\' {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if line.len() > LONGEST_LINE {
        // At most three steps back: a character has at most four bytes.
        let cut = (0..=LONGEST_LINE).rfind(|&at| line.is_char_boundary(at));
        line.truncate(cut.unwrap_or_default());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, one_line};

    #[test]
    fn what_could_forge_or_hide_a_line_is_escaped() {
        assert_eq!(one_line(b"user=a\nuser=b"), r"user=a\nuser=b");
        assert_eq!(one_line(b"\x1b[2J\0\t"), r"\u{1b}[2J\u{0}\t");
        let turned = one_line("a\u{202e}b\u{2028}c".as_bytes());
        assert_eq!(turned, r"a\u{202e}b\u{2028}c");
        assert_eq!(one_line(b"a\\n"), r"a\\n");
        assert_eq!(one_line(b"\xff\xc3("), r"\xff\xc3(");
    }

    #[test]
    fn letters_of_any_language_stay_as_they_are() {
        assert_eq!(one_line("Größe, 日本".as_bytes()), "Größe, 日本");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = one_line(format!("a{}", "€".repeat(LONGEST_LINE)).as_bytes());
        assert_eq!(line.len(), 1 + (LONGEST_LINE - 1) / 3 * 3);
        assert!(line.ends_with('€'));
    }
}
