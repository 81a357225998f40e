//! The options of `nfs-hostchange`, from which its manual page and the shells'
//! completions are made too.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

/// Dovecot's local mailbox list indexes on an NFS cluster: where they are.
#[derive(Debug, Parser)]
#[command(name = "nfs-hostchange", version, about)]
pub struct CommandLine {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where a user's INDEX and LISTINDEX are
    Locate(Locate),
}

/// The options of `nfs-hostchange locate`.
#[derive(Debug, Args)]
pub struct Locate {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The user's name, as Dovecot has it after the login
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    pub user: OsString,

    /// The home directory that the userdb returns [default: mail_home of the
    /// configuration file]
    #[arg(long, value_name = "DIRECTORY", allow_hyphen_values = true)]
    pub home: Option<OsString>,

    /// What Dovecot's mail_location is, with its %variables [default: mail_location of
    /// the configuration file]
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    pub location: Option<OsString>,
}
