//! The administrator's command, `nfs-hostchange`.

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::Parser;
use clap::error::ErrorKind;

mod check;
pub mod command_line;
mod complaints;
mod locate;
pub mod output;
mod room;
mod status;
mod usercache;

use command_line::{Command, CommandLine, Usercache};
use output::{Exit, complain};

/// Does what the command line says, and returns the process's exit status.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Exit {
    let exit = match CommandLine::try_parse_from(arguments) {
        Ok(CommandLine { command }) => match command {
            Command::Locate(options) => locate::print::run(&options),
            Command::Check(options) => check::print::run(&options),
            Command::Status(options) => status::print::run(&options),
            Command::Usercache(Usercache::Clean(options)) => usercache::clean(&options),
            Command::Usercache(Usercache::Sweep(options)) => usercache::sweep(&options),
            Command::Usercache(Usercache::Forget(options)) => usercache::forget(&options),
        },
        Err(error)
            if error.use_stderr()
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            complain(one_line(&error));
            Exit::Usage
        }
        Err(error) => {
            let help = error.render().to_string();
            if error.use_stderr() {
                let _ = write!(io::stderr(), "{help}");
                Exit::Usage
            } else {
                output::say_as_it_is(&help);
                Exit::Ok
            }
        }
    };
    output::finish(exit)
}

/// What is wrong, without the advice that follows in lines of its own.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let words: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .flat_map(str::split_whitespace)
        .skip_while(|&word| word == "error:")
        .collect();
    words.join(" ").replace(" tip: ", "; ")
}
