//! The options of `nfs-hostchange`, from which its manual page and the shells'
//! completions are made too.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::dovecot::age::{AgeError, parse_age};
use crate::dovecot::location::list_index_name;
use crate::names::DEFAULT_CONFIGURATION;

/// Dovecot's local mailbox list indexes on an NFS cluster: check the configuration, show users, and
/// delete list indexes that nobody uses.
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
    /// Find mistakes in the configuration, and show what to write
    Check(Check),
    /// Show who claimed a user last, and whether this backend is in step
    Status(Status),
    /// Delete unused list indexes, or start new ones for all
    #[command(subcommand)]
    Usercache(Usercache),
}

/// The options of `nfs-hostchange check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Dovecot's configuration file, for doveconf
    /// [default: doveconf's]
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub dovecot_config: Option<PathBuf>,

    /// Check what this user gets; may be repeated
    /// [default: up to 20 users that Dovecot or this
    /// backend knows]
    #[arg(long, short, value_name = "USER", verbatim_doc_comment)]
    pub user: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Only print lines for tmpfiles.d(5) that create
    /// the directories for list indexes at boot
    #[arg(long, conflicts_with = "json", verbatim_doc_comment)]
    pub tmpfiles: bool,
}

/// The options of `nfs-hostchange status`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["user", "below", "directory"])))]
pub struct Status {
    /// Where the settings are
    #[command(flatten)]
    pub configuration: ConfigurationFile,

    /// One user, as "doveadm user -u" knows it
    #[arg(long, short, value_name = "USER", value_parser = one_user(), verbatim_doc_comment)]
    pub user: Option<OsString>,

    /// Dovecot's configuration file, for doveadm
    /// [default: doveadm's]
    #[arg(long, value_name = "FILE", requires = "user", verbatim_doc_comment)]
    pub dovecot_config: Option<PathBuf>,

    /// Totals of all users' directories below this one
    #[arg(long, value_name = "ROOT", value_parser = directory())]
    pub below: Option<PathBuf>,

    /// One user's directory for list indexes
    #[arg(value_name = "PATH", value_parser = directory())]
    pub directory: Option<PathBuf>,

    /// The list index's file name, the last part of
    /// LISTINDEX
    #[arg(long, value_name = "NAME", default_value = "dovecot.list.index", value_parser = prefix(), conflicts_with = "user", verbatim_doc_comment)]
    pub prefix: CString,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print totals for node_exporter's textfile
    /// collector
    #[arg(
        long,
        conflicts_with_all = ["json", "user", "directory"],
        verbatim_doc_comment
    )]
    pub prometheus: bool,
}

/// What `nfs-hostchange usercache` can do.
#[derive(Debug, Subcommand)]
pub enum Usercache {
    /// Delete the list indexes in the given directories
    Clean(Clean),
    /// Delete the list indexes of all users below a directory
    Sweep(Sweep),
    /// Make every user's next login start a new list index
    Forget(Forget),
}

/// The options of `nfs-hostchange usercache clean`.
#[derive(Debug, Args)]
pub struct Clean {
    /// Which, and how
    #[command(flatten)]
    pub unused: Unused,

    /// Users' directories for list indexes, as absolute paths
    #[arg(required = true, value_name = "PATH", value_parser = directory())]
    pub paths: Vec<PathBuf>,
}

/// The options of `nfs-hostchange usercache sweep`.
#[derive(Debug, Args)]
pub struct Sweep {
    /// Which, and how
    #[command(flatten)]
    pub unused: Unused,

    /// The directory that holds the users' directories, up to eight
    /// levels deep, and nothing else: an absolute path
    #[arg(value_name = "ROOT", value_parser = directory(), verbatim_doc_comment)]
    pub root: PathBuf,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `nfs-hostchange usercache forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// The directory that holds the users' directories, as for sweep
    #[arg(value_name = "ROOT", value_parser = directory())]
    pub root: PathBuf,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which list indexes are deleted.
#[derive(Debug, Args)]
pub struct Unused {
    /// Delete what nobody has used for this long: 7days, "1 week"
    #[arg(value_name = "MIN_AGE", value_parser = age())]
    pub min_age: Duration,

    /// The list index's file name, the last part of
    /// LISTINDEX
    #[arg(long, value_name = "NAME", default_value = "dovecot.list.index", value_parser = prefix(), verbatim_doc_comment)]
    pub prefix: CString,

    /// Show what would be deleted, and delete nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,

    /// Show what was deleted
    #[arg(long, short)]
    pub verbose: bool,
}

fn age() -> impl TypedValueParser<Value = Duration> {
    OsStringValueParser::new()
        .try_map(|text| -> Result<Duration, AgeError> { parse_age(text.as_bytes()) })
}

/// An absolute path, `/` aside, without `..`.
fn directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new()
        .map(PathBuf::from)
        .try_map(|path| {
            if !path.is_absolute() {
                Err("the path must be absolute")
            } else if path.components().any(|part| part == Component::ParentDir) {
                Err("the path must not contain '..'")
            } else if path.file_name().is_none() {
                Err("this is the root of the file system")
            } else {
                Ok(path)
            }
        })
}

/// doveadm would take a pattern for many users.
fn one_user() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|name| {
        let is_pattern = name.as_bytes().iter().any(|byte| b"*?".contains(byte));
        (!is_pattern)
            .then_some(name)
            .ok_or("one user's name, not a pattern; --below shows all users")
    })
}

fn prefix() -> impl TypedValueParser<Value = CString> {
    OsStringValueParser::new()
        .try_map(|name| list_index_name(name.as_bytes()).ok_or("no list index can have this name"))
}

/// Where the settings are.
#[derive(Debug, Args)]
pub struct ConfigurationFile {
    /// The configuration file
    #[arg(
        long = "config",
        value_name = "FILE",
        default_value = DEFAULT_CONFIGURATION,
        hide_default_value = true,
        help = format!("The configuration file\n[default: {DEFAULT_CONFIGURATION}]")
    )]
    pub path: PathBuf,
}

/// The options of `nfs-hostchange locate`.
#[derive(Debug, Args)]
pub struct Locate {
    /// Where the settings are
    #[command(flatten)]
    pub configuration: ConfigurationFile,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The user's name, as it is after the login
    #[arg(
        long,
        short,
        value_name = "USER",
        allow_hyphen_values = true,
        verbatim_doc_comment
    )]
    pub user: OsString,

    /// A userdb field, as a post-login script sees it;
    /// may be repeated [default: what "doveadm user -u"
    /// says of the user]
    #[arg(
        long = "field",
        value_name = "NAME=VALUE",
        value_parser = field(),
        allow_hyphen_values = true,
        verbatim_doc_comment
    )]
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,

    /// Dovecot's configuration file, for doveadm
    /// [default: doveadm's]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "fields",
        verbatim_doc_comment
    )]
    pub dovecot_config: Option<PathBuf>,
}

fn field() -> impl TypedValueParser<Value = (Vec<u8>, Vec<u8>)> {
    OsStringValueParser::new().try_map(|field| {
        let bytes = field.as_bytes();
        match bytes.iter().position(|&byte| byte == b'=') {
            Some(at @ 1..) => Ok((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
            Some(0) | None => Err("a userdb field is NAME=VALUE"),
        }
    })
}
