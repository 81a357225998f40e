//! Makes the manual page and the shells' completions of `nfs-hostchange` from the
//! definition of its options: `cargo run --package generate -- DIRECTORY`.

#![deny(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use nfs_hostchange::admin::command_line::CommandLine;

/// What the parser of the options does not know.
const REST_OF_THE_PAGE: &str = include_str!("nfs-hostchange.8");

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("which directory?")?);
    std::fs::create_dir_all(&directory)?;

    let mut command = CommandLine::command();
    for shell in [Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "nfs-hostchange", &directory)?;
    }
    let bash = generate_to(Shell::Bash, &mut command, "nfs-hostchange", &directory)?;
    // clap_complete 4.6 writes a hyphen in the command's name in one way where it sets the
    // state and in another where it asks for it.
    let script = std::fs::read_to_string(&bash)?;
    std::fs::write(
        &bash,
        script.replace("nfs__subcmd__hostchange", "nfs__hostchange"),
    )?;
    // Gives every subcommand its full name.
    command.build();
    std::fs::write(directory.join("nfs-hostchange.8"), page(&command)?)?;
    Ok(())
}

/// One page for all subcommands.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section("8")
        .manual("System administration")
        // The same source gives the same page on every day.
        .date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;

    let commands = without_subcommands(command);
    writeln!(page, ".SH SYNOPSIS")?;
    for command in &commands {
        writeln!(page, "{}\n.br", usage(command))?;
    }
    man.render_description_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in &commands {
        writeln!(page, ".SS {}", usage(command))?;
        // The sections of a page of its own, in this one.
        let man = Man::new((*command).clone());
        let mut sections = Vec::new();
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        for line in String::from_utf8_lossy(&sections).lines() {
            match line {
                ".SH DESCRIPTION" | ".SH OPTIONS" => writeln!(page, ".PP")?,
                line => writeln!(page, "{line}")?,
            }
        }
    }
    page.extend(REST_OF_THE_PAGE.as_bytes());
    Ok(page)
}

/// The commands that do something.
fn without_subcommands(command: &Command) -> Vec<&Command> {
    if command.has_subcommands() {
        let visible = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set() && command.get_name() != "help");
        visible.flat_map(without_subcommands).collect()
    } else {
        vec![command]
    }
}

/// The command's name in bold, and what may follow it.
fn usage(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let usage = command.clone().render_usage().to_string();
    let rest = usage
        .split_once(name)
        .map_or("", |(_, rest)| rest)
        .replace('-', "\\-");
    format!("\\fB{}\\fR{rest}", name.replace('-', "\\-"))
}
