//! Everything that can be found, each kind once: its name, how bad it is, and what the administrator reads.

use std::fmt;
use std::path::PathBuf;

use crate::admin::output::counted;
use crate::dovecot::files::Place;
use crate::dovecot::settings::Settings;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; it may be meant so.
    Hint,
    /// Something will go wrong, sooner or later.
    Warning,
    /// Users see old folders, have no list index, deliveries fail, or somebody gets in.
    Error,
    /// Nobody can log in or find any mail, or Dovecot does not start.
    Critical,
}

impl Severity {
    /// In lower case, as it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What fixes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Lines at the end of a file.
    Append(PathBuf, String),
    /// Lines at the beginning of a file.
    Prepend(PathBuf, String),
    /// Lines after a line.
    After(Place, String),
    /// Lines in place of a line; none if it has to go.
    Replace(Place, String),
    /// A command for root's shell.
    Run(String),
}

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The line that is wrong, if it is one.
    pub place: Option<Place>,
    /// What fixes it, if that can be written down.
    pub remedy: Option<Remedy>,
    /// How many other users have the same.
    pub others: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.others {
            0 => Ok(()),
            others => write!(f, "; {} too", counted(others as u64, "other user")),
        }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds one that no single line is to blame for.
    pub fn add(&mut self, kind: Kind, remedy: impl Into<Option<Remedy>>) {
        self.add_at(kind, None, remedy);
    }

    /// Adds one, with the line to blame.
    pub fn add_at(
        &mut self,
        kind: Kind,
        place: impl Into<Option<Place>>,
        remedy: impl Into<Option<Remedy>>,
    ) {
        self.0.push(Finding {
            kind,
            place: place.into(),
            remedy: remedy.into(),
            others: 0,
        });
    }

    /// Adds what is found about a user; of several users with the same, the first is named.
    pub fn add_of_user(
        &mut self,
        kind: Kind,
        place: impl Into<Option<Place>>,
        remedy: impl Into<Option<Remedy>>,
    ) {
        let same = |finding: &&mut Finding| {
            std::mem::discriminant(&finding.kind) == std::mem::discriminant(&kind)
        };
        match self.0.iter_mut().find(same) {
            Some(finding) => finding.others += 1,
            None => self.add_at(kind, place, remedy),
        }
    }

    /// How many there are.
    pub fn number(&self) -> usize {
        self.0.len()
    }

    /// Whether something is wrong with this line that keeps everybody from logging in.
    pub fn is_critical_at(&self, place: Option<&Place>) -> bool {
        self.0.iter().any(|finding| {
            finding.kind.severity() == Severity::Critical
                && place.is_some()
                && finding.place.as_ref() == place
        })
    }

    /// All of them, the worst first.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.0
            .sort_by_key(|finding| std::cmp::Reverse(finding.kind.severity()));
        self.0
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $({ $($field:ident: $type:ty),+ })? = $id:literal $severity:ident $words:literal;)+) => {
        /// What was found, by what an administrator has to know about it.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the words of each kind say what its fields are")]
        pub enum Kind {
            $($(#[$doc])* $name $({ $($field: $type),+ })?,)+
        }

        impl Kind {
            /// A name that stays the same.
            #[must_use]
            pub fn id(&self) -> &'static str {
                match self { $(Self::$name { .. } => $id,)+ }
            }

            /// How bad it is.
            #[must_use]
            pub fn severity(&self) -> Severity {
                match self { $(Self::$name { .. } => Severity::$severity,)+ }
            }

            /// Name and severity of every kind.
            #[must_use]
            pub fn all() -> Vec<(&'static str, Severity)> {
                vec![$(($id, Severity::$severity)),+]
            }
        }

        impl fmt::Display for Kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name $({ $($field),+ })? => write!(f, $words),)+
                }
            }
        }
    };
}

kinds! {
    // The services.
    NoPostLogin { service: String } = "no_post_login" Error
        "{service} logins do not pass nfs-hostchange-login: users see old folders";
    NoSocket { service: String, socket: String } = "no_socket" Critical
        "service {service} asks for the socket {socket}, and no post-login service listens there: every login fails";
    NoScriptLogin { service: String, executable: String } = "no_script_login" Critical
        "service {service} executes '{executable}' without script-login: every login fails";
    ChainInService { service: String, executable: String } = "no_script_login" Critical
        "service {service} executes '{executable}' in place of its own program, which belongs into a post-login service: every login fails";
    NoWrapper { service: String } = "no_wrapper" Error
        "service {service} does not execute nfs-hostchange-login: users see old folders";
    NotExecutable { program: String, service: String, why: String } = "not_executable" Critical
        "{program}, which service {service} executes, {why}: every login fails";
    NoPath { program: String, service: String } = "no_path" Critical
        "{program} in the chain of service {service} has no path, and only the first program after script-login does without: every login fails";
    UnknownOption { option: String, service: String } = "unknown_option" Critical
        "nfs-hostchange-login has no option '{option}', which service {service} gives it: every login fails";
    NoSuchConfiguration { file: String, service: String } = "no_configuration" Warning
        "{file}, which service {service} names with --config, does not exist: the wrapper uses its defaults";
    NotLast { service: String, program: String } = "not_last" Warning
        "service {service} executes {program} after nfs-hostchange-login: if it changes the location or the home, the wrong list index was looked at";
    NoSuchUser { service: String, user: String } = "no_such_user" Critical
        "service {service} is to run as '{user}', who does not exist: Dovecot does not start";
    NoSuchOwner { setting: String, owner: String } = "no_such_user" Critical
        "{setting} is '{owner}', which does not exist: Dovecot does not start";
    ServiceUser { service: String, user: String, mail_user: String } = "service_user" Error
        "service {service} runs as {user}, but mail belongs to {mail_user}: sessions have no list index, and deliveries may crash";
    ShellWords { service: String, executable: String } = "shell_words" Critical
        "service {service} executes '{executable}', which is written for a shell, and no shell reads it: every login fails";
    AddressSpace { service: String, limit: String, setting: String } = "vsz_limit" Critical
        "service {service} may have {limit} of address space ({setting}), in which script-login cannot start: every login fails";
    ServiceChroot { service: String, directory: String } = "service_chroot" Critical
        "service {service} has chroot = {directory}, where the programs that it executes are not: every login fails";
    ServiceCount { service: String, count: String, setting: &'static str } = "service_count" Critical
        "service {service} has {setting} = {count}: from its second login on, a process is no longer root and cannot connect to the post-login socket: these logins fail";
    ProcessLimit { post_login: String, own: u64, service: String, needed: u64 } = "process_limit" Warning
        "process_limit of {post_login} is {own}, that of {service} is {needed}: logins beyond that wait, and are then dropped";
    GidNotValid { user: String, gid: u32, setting: &'static str, limit: u64 } = "gid_not_valid" Critical
        "{user} has the gid {gid}, and {setting} is {limit}: Dovecot refuses the login";
    UidNotValid { user: String, uid: u32, setting: &'static str, limit: u64 } = "uid_not_valid" Critical
        "{user} has the uid {uid}, and {setting} is {limit}: Dovecot refuses the login";
    UnknownGroups { user: String, groups: String } = "groups" Error
        "{user} is a member of groups that are not in /etc/group ({groups}): the wrapper cannot know them unless script-login takes on the user's ids first (-d)";
    AccessGroups { groups: String } = "access_groups" Error
        "mail_access_groups is '{groups}': the wrapper does not have these groups unless script-login takes on the user's ids first (-d)";
    Hibernation = "hibernation" Warning
        "imap_hibernate_timeout is set: no post-login script runs when a hibernated session wakes up, so its list index is trusted without being compared";

    // The wrapper's configuration file.
    Configuration { reason: String } = "configuration" Error
        "the wrapper uses its defaults: {reason}";
    Unreadable { file: String, user: String } = "configuration" Error
        "{user} may not read {file}: the built-in defaults are used, and sessions of users who move run without list index";
    Migration = "migration" Hint
        "migration is on: switch it off once everybody has logged in and the log shows no list index taken over any more";
    HostName = "host_name" Warning
        "this backend is called localhost, and so may others be: the log cannot tell where a user came from";
    InboxNamespace { name: String } = "inbox_namespace" Error
        "the namespace with the inbox is called '{name}', and the wrapper looks for the fields of another one: a session that must not use its list index does so all the same";
    NoInbox = "no_inbox" Critical
        "no namespace has inbox = yes: no session finds any mailbox";
    UnusableInboxName { name: String } = "inbox_namespace" Error
        "the namespace with the inbox is called '{name}': post-login scripts cannot address a name with capital letters or blanks";

    // What runs.
    NotRunning { reason: String } = "not_running" Hint
        "users cannot be looked up ({reason}): run this again while Dovecot runs";
    Refused { reason: String } = "refused" Critical
        "Dovecot refuses its configuration: {reason}. It does not start, or goes on with what it has read before";
    NotReloaded { file: String } = "not_reloaded" Warning
        "Dovecot has been running since before {file} was changed: what is said here about services applies only after a restart, and users cannot be looked up until then";
    NoUser = "no_user" Warning
        "Dovecot cannot list its users: name one or more with --user";
    LookupFails { user: String, reason: String } = "lookup_fails" Critical
        "{user}: {reason}, so every login fails: 'doveadm log errors' has auth's reason";
    UnknownUser { user: String, reason: String } = "unknown_user" Error
        "{user}: {reason}";

    // How locations are spelled.
    LocationSpelling { setting: String, location: String } = "spelling" Critical
        "{setting} has the location '{location}', in which Dovecot does not find what is meant: it refuses every login, or uses another directory, without any mail";
    OldSpelling { setting: String, value: String } = "spelling" Critical
        "{setting} is '{value}', a location as Dovecot 2.3 writes it: Dovecot 2.4 takes all of it for a path, where no mail is";
    OldVariable { setting: String, variable: String } = "spelling" Error
        "{variable} in {setting} is a variable of Dovecot 2.3, which Dovecot 2.4 takes for text: all users have the same directory";
    NoCopy { setting: String, value: String } = "spelling" Critical
        "{setting} is '{value}', which copies no setting: Dovecot takes it for a path or a driver, and no mail is there";
    RelativePath { setting: String, value: String } = "spelling" Critical
        "{setting} is '{value}', a path that begins with neither / nor ~/: users have no mailboxes";
    NoValue { setting: String, location: String } = "spelling" Error
        "{setting} has the location '{location}', in which LISTINDEX has no value: nobody has a list index";
    DirectoryPrefix { value: String } = "file_name" Error
        "mailbox_list_index_prefix is {value}, without a file name such as dovecot.list.index at its end: nobody has a list index";

    // Where the list index is.
    NoLocation { user: String } = "no_location" Error
        "the userdb does not tell a post-login script where the list index of {user} is: the wrapper compares nothing, and users see old folders";
    MissingField { user: String, field: &'static str } = "no_location" Error
        "the userdb does not tell a post-login script the {field} of {user}: the wrapper compares nothing, and users see old folders";
    OtherLocation { user: String, service: String, login: String, used: String } = "other_location" Error
        "for {user}, a post-login script sees '{login}', but {service} uses '{used}': the wrong list index is compared, and users see old folders";
    OwnLocation { namespace: String, field: String } = "own_location" Error
        "the block of namespace {namespace} has a location, and the userdb does not return it as {field}: a session that must not use its list index does so all the same";
    BlockSetting { setting: String, block: String } = "block_setting" Error
        "{setting} is set in the block {block}, which can override what the userdb returns: then the wrong list index is compared";
    UserdbVariable { variable: String, setting: String } = "userdb_variable" Error
        "{variable} in {setting} expands to nothing, because the userdb expands its fields before the home is known: everybody's mail is in one directory";
    RefusedVariable { variable: String, setting: String } = "userdb_variable" Error
        "the userdb cannot expand {variable} in {setting}: it drops all of these fields, or refuses every login";
    ChangingVariable { variable: String, setting: String } = "userdb_variable" Error
        "{variable} in {setting} differs between services or clients: deliveries do not use the list index that logins use";
    Blank { word: String, setting: String } = "blank_in_field" Error
        "a blank ends a field's value, so '{word}' in {setting} is lost";
    EmptyPath { setting: String } = "empty_path" Critical
        "{setting} is empty: it overrides the driver's own path, and every login fails";
    SecondLine { setting: String, fields: String } = "second_line" Error
        "{setting} is set twice, and only the last line counts: '{fields}' is lost";
    OtherPrefetch { login: String, delivery: String } = "prefetch" Error
        "logins get '{login}' with the passdb's answer, and deliveries get '{delivery}' from the userdb: they use different list indexes";
    Prefetch { field: String } = "prefetch" Error
        "a prefetch userdb returns only what the passdb found, and that has no {field}: the wrapper compares nothing";
    OldCopy { field: String } = "prefetch" Error
        "{field} in passdb_fields is not what dovecot.conf says ($SET: copies what is above it): logins and deliveries use different list indexes";
    InboxPath { path: String, driver: String } = "inbox_path" Error
        "mail_inbox_path is {path}, which {driver} cannot use: no INBOX can be opened";
    OverriddenField { field: String, database: String } = "overridden_field" Error
        "userdb_fields has {field}, and so has {database}: the value for each user is ignored";
    OneIndex { user: String, other: String, directory: String } = "one_index" Error
        "{user} and {other} have the same INDEX, {directory}: their mail is in one directory";
    NoDriver { user: String } = "no_location" Error
        "neither dovecot.conf nor the userdb says where the mail of {user} is, and Dovecot guesses: write a mail_location with a driver in front and LISTINDEX at its end, and let the userdb return it";
    NoHome { user: String } = "no_home" Error
        "the userdb does not return the home of {user}, and a post-login script does not see mail_home: the wrapper cannot find INDEX, and compares nothing";
    NoUid { user: String, field: &'static str, service: String } = "no_uid" Error
        "the userdb does not return the {field} of {user}, and service {service} runs as root: the wrapper does not know whose rights to use, and sessions have no list index";
    BadLocation { user: String, reason: String } = "location" Error
        "{user}: {reason}";
    RefusedLocation { user: String, reason: String } = "location" Critical
        "{user}: {reason}; every login fails";
    QuotedField { setting: String } = "quoted_field" Critical
        "the quotes inside {setting} become part of a field's value: every login fails";
    NoListIndex { user: String } = "no_list_index" Warning
        "LISTINDEX is not set for {user}: the list index is in INDEX, on NFS";
    RowWithoutListIndex { user: String, location: String, wanted: &'static str } = "no_list_index" Error
        "the location that the userdb returns for {user}, '{location}', overrides the one for all users, and has no LISTINDEX: write :LISTINDEX={wanted} at its end";
    DatabaseWithoutListIndex { user: String, location: String, wanted: &'static str } = "no_list_index" Warning
        "the location that the userdb returns for {user}, '{location}', has no LISTINDEX: the list index is in INDEX, on NFS. Write :LISTINDEX={wanted} at its end";
    SharedListIndex { user: String, reason: String } = "shared_list_index" Warning
        "the list index of {user} is not local: {reason}";
    ListIndexOff { user: String } = "list_index_off" Warning
        "{user} has no list index, or has it in memory";
    LayoutIndex { user: String } = "layout_index" Error
        "the layout of {user} is index: the list index is the only map from names to directories, and must not be local";
    SharedLayoutIndex = "layout_index" Hint
        "the layout is index, and the list index in INDEX: there is nothing to keep in step";
    IndexInMemory { user: String } = "index_in_memory" Error
        "with the index in memory there is no shared directory for the claim of {user}";
    Chrooted { user: String } = "chroot" Error
        "{user} is chrooted: the path of the list index is below another root, and no session can use it. Without LISTINDEX (mailbox_list_index_prefix) it is in INDEX";
    FileName { user: String, path: String } = "file_name" Error
        "LISTINDEX of {user} is {path}, without a file name such as /dovecot.list.index at its end: all users of a directory share one record, and lose it to each other";
    OneDirectory { directory: String } = "one_directory" Error
        "LISTINDEX is the directory {directory} for all users: they need one each";
    IndexNotShared { directory: String } = "index_not_shared" Hint
        "INDEX below {directory} is not on a network file system: do all backends share it?";
    NoStore { user: String, directory: String } = "closed_index" Error
        "{directory}, where INDEX of {user} belongs, does not exist, and {user} may not make it: is the file system with the mail mounted?";
    ClosedIndex { user: String, directory: String } = "closed_index" Error
        "{user} may not write to {directory}: mailboxes cannot be made there or changed, and nobody can claim {user}";
    LeftOver { field: String } = "left_over" Hint
        "userdb_fields has {field}, which this Dovecot ignores";

    // Other list indexes.
    OtherListIndex { namespace: String, path: String } = "other_list_index" Error
        "namespace {namespace} has a local list index too ({path}), and nothing keeps it in step with other backends: users see old folders there";
    SameListIndex { namespace: String, path: String } = "same_list_index" Error
        "namespace {namespace} has its list index in the same file as the inbox ({path}): each overwrites the other's";
    SecondLocation { namespace: String, path: String } = "same_list_index" Error
        "namespace {namespace} has a location of its own with the inbox's list index ({path}): a session that must not use it does so under that name";
    InboxIndex { namespace: String, path: String } = "inbox_index" Error
        "namespace {namespace} has its list index at {path}, where the inbox has its own on a backend without LISTINDEX: a migration takes it for the inbox's, and such a backend mixes the two";
    SharedByReader { namespace: String, path: String } = "shared_by_reader" Error
        "namespace {namespace} has a list index of other users' mailboxes for each reader ({path}), which nothing keeps in step: use the owner's path";
    PublicNamespace { namespace: String } = "public_namespace" Hint
        "namespace {namespace} is public: the plugin does not use its local list index, so it runs without one";
    PrefixCollision { namespace: String, one: String, other: String } = "prefix_collision" Error
        "the list index of namespace {namespace} is called {one}, which looks like a file of the inbox's, {other}";
    SharedNamespace { namespace: String } = "shared_namespace" Warning
        "namespace {namespace} shows other users' mailboxes, and mailbox_list_index_very_dirty_syncs is on: changes by their owners go unnoticed, even on a single backend";
    TwoNames { namespace: String } = "two_names" Warning
        "namespace {namespace} shows the mailboxes of the inbox's under a second name, and mailbox_list_index_very_dirty_syncs is on: changes under one name go unnoticed under the other";
    MigrationNamespace { namespace: String } = "migration_namespace" Error
        "migration is on, and namespace {namespace} keeps a list index in an INDEX that an inbox has too: it would be taken over as the inbox's";

    // The directories.
    NetworkListIndex { directory: String } = "network_list_index" Error
        "{directory} is on a network file system: list indexes there are shared, not local";
    DiskListIndex { directory: String } = "disk_list_index" Warning
        "{directory} is on a disk: list indexes survive a reboot, and are slower than in memory";
    SharedBase { directory: String } = "shared_base" Warning
        "list indexes are in {directory} itself, where others have files too: usercache sweep refuses it";
    NoBase { reason: String } = "no_base" Error
        "{reason}: no list index can be created there, and deliveries fail";
    ReadOnly { directory: String } = "read_only" Error
        "{directory} is on a file system that is mounted read-only: no list index can be created there, and deliveries fail";
    ReadOnlyForService { directory: String } = "read_only" Error
        "{directory} is read-only for Dovecot's service: no list index can be created there, and deliveries fail (after a change of the service: systemctl daemon-reload, and a restart)";
    HiddenBase { directory: String } = "hidden_base" Error
        "Dovecot's service sees another {directory} than this host has (PrivateTmp, TemporaryFileSystem or the like): what creates directories at boot, sweeps, or shows the status does not see the list indexes (after a change of the service: systemctl daemon-reload, and a restart)";
    ForeignBase { directory: String, owner: u32, wanted: String } = "foreign_base" Error
        "{directory} belongs to uid {owner}, not to {wanted}: the owner decides who may have a list index";
    WritableBase { directory: String } = "writable_base" Error
        "{directory} can be written to by others, who may remove a user's directory or occupy its place";
    CrowdedBase { directory: String } = "writable_base" Warning
        "{directory} can be written to by others, who may occupy the place of a user's directory";
    ClosedBase { directory: String } = "closed_base" Error
        "{directory} cannot be written to by those who make users' directories there: they have no list index, and deliveries fail";
    ClosedAbove { directory: String } = "closed_base" Error
        "{directory} cannot be entered by mail users: they have no list index, and deliveries fail";
    NoHashDirectories { missing: usize, all: usize, first: String } = "no_hash_directories" Error
        "{missing} of {all} directories are missing, {first} for one: a delivery before its first login fails";
    NoTmpfiles { first: String, more: usize } = "no_tmpfiles" Warning
        "nothing creates {first} at boot ({more} more): deliveries before the first login fail";
    TmpfilesLine { directory: String, line: String, wanted: String } = "tmpfiles_line" Error
        "the line '{line}' creates {directory} at boot with the wrong owner or mode (it needs {wanted})";
    TmpfilesAge { directory: String, line: String } = "tmpfiles_line" Error
        "the line '{line}' lets systemd-tmpfiles delete old files in {directory}, even if sessions have them open";

    // The host.
    NotMounted { directory: String } = "not_mounted" Warning
        "{directory} is meant to be a file system of its own, which is not mounted: list indexes share theirs with other programs, which can fill it";
    CommonFileSystem { directory: String, mount_point: String } = "common_file_system" Hint
        "{directory} is on {mount_point}, which every program of this host can fill: users then have no list index. A file system of its own is safer (in a container: --tmpfs {directory}); restart Dovecot once it is mounted";
    Space { mount_point: String, size: u64, files: u64, free: u64, free_files: u64, users: u64 } = "space" Warning
        "{mount_point} has room for {size} MiB and {files} files, {free} MiB and {free_files} files of it free: about {users} users fit, and others have no list index (a container gets more with --shm-size)";
    Unlimited { mount_point: String } = "unlimited" Warning
        "{mount_point} has no size limit: list indexes can take all memory of this host (the kernel limits it only when it is mounted anew, as at the next boot)";
    MemoryLimit { mount_point: String, size: u64, limit: u64 } = "memory_limit" Warning
        "{mount_point} may hold {size} MiB, but Dovecot's service may use only {limit} MiB of memory, list indexes included: processes are killed before it is full";
    RemoveIpcOfMany = "remove_ipc" Error
        "mail users are not system users: when a session of such a user on this host ends, systemd-logind deletes the user's files in /dev/shm, even if mail sessions use them";
    RemoveIpcOfOne { user: String } = "remove_ipc" Warning
        "mail user {user} is not a system user: when a session of such a user on this host ends, systemd-logind deletes the user's files in /dev/shm, even if mail sessions use them";
    NoSweep = "no_sweep" Hint
        "nothing sweeps here every night: list indexes of users who left stay in memory";

    // The plugin.
    PluginSetting { setting: String } = "plugin_setting" Warning
        "the plugin has no setting {setting}: it is ignored. What is not migration or recheck belongs into nfs-hostchange.toml";
    PluginValue { setting: String, value: String, wanted: &'static str } = "plugin_setting" Warning
        "{setting} = {value} is ignored: it must be {wanted}";
    PluginSettingOfWrapper { setting: String, own: String } = "plugin_setting" Warning
        "nothing reads {setting}, because mail_plugins does not have nfs_hostchange: for the wrapper, write {own} into nfs-hostchange.toml";
    PluginProtocols { protocol: String } = "plugin_protocols" Error
        "mail_plugins has nfs_hostchange, but not for {protocol}: what is changed there is not noticed by other backends";
    PluginAbi { file: String, own: String, dovecot: String } = "plugin_abi" Critical
        "{file} was built for Dovecot {own}, but {dovecot} is installed: every session fails";
    MistypedPlugin { word: String } = "no_plugin" Critical
        "mail_plugins has {word}, but the plugin is called nfs_hostchange: every session fails";
    NoPlugin { directory: String } = "no_plugin" Critical
        "mail_plugins has nfs_hostchange, but {directory} has no such file: every session fails";
    BothFrontEnds = "both_front_ends" Hint
        "both the plugin and the wrapper are in use: the plugin alone is enough, and faster";
}

/// Lines for the end of Dovecot's main file.
pub fn write(settings: &Settings, lines: impl Into<String>) -> Remedy {
    Remedy::Append(settings.main_file().to_owned(), lines.into())
}

/// A word for the shell, quoted if it has to be.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Kind, Severity};

    /// The rows `| id | severity | ... |` of docs/json.md.
    #[test]
    fn each_finding_has_a_case_on_real_dovecot() {
        let cases = concat!(
            include_str!("../../../tests/check/mistakes.py"),
            include_str!("../../../tests/check/clusters.py")
        );
        for (id, _) in Kind::all() {
            assert!(cases.contains(&format!("\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn the_documents_have_exactly_these_findings() {
        let document = include_str!("../../../docs/json.md");
        let (_, table) = document
            .split_once("| id | severity |")
            .expect("the table's head");
        let documented: BTreeMap<&str, &str> = table
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split(" | ");
                Some((cells.next()?.trim_end_matches('`'), cells.next()?))
            })
            .collect();
        let mut worst: BTreeMap<&str, Severity> = BTreeMap::new();
        for (id, severity) in Kind::all() {
            let entry = worst.entry(id).or_insert(severity);
            *entry = severity.max(*entry);
        }
        let worst: BTreeMap<&str, &str> = worst
            .into_iter()
            .map(|(id, severity)| (id, severity.name()))
            .collect();
        assert_eq!(documented, worst);
    }
}
