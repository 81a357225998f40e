//! The wrapper: Dovecot's post-login script, which becomes the real IMAP or POP3 process.

#![no_main]
#![deny(unsafe_code)]

use nfs_hostchange::dovecot::environment::Environment;
use nfs_hostchange::login::command_line::{self, CommandLine};
use nfs_hostchange::login::{self, Failure};
use nfs_hostchange::system::arena::Arena;
use nfs_hostchange::system::start::{self, Start};
use nfs_hostchange::system::{credentials, descriptors};

#[global_allocator]
static MEMORY: Arena = Arena::new();

nfs_hostchange::entry_point!(run);

fn run(start: Start) -> ! {
    descriptors::occupy_standard();
    if start::is_secure_execution() {
        if let Err(errno) = credentials::drop_for_good() {
            login::fail(&Failure::Privileges(errno));
        }
    }
    let command = match command_line::parse(start.arguments()) {
        Ok(command) => command,
        Err(error) => login::fail(&Failure::Usage(error)),
    };
    let environment = Environment::new(start.environment());
    match login::decide(&command, &environment) {
        None => execute(&command, start.environment()),
        Some(environment) => execute(&command, &environment),
    }
}

fn execute(command: &CommandLine, environment: &[impl AsRef<std::ffi::CStr>]) -> ! {
    let errno = start::execute(command.program[0], command.program, environment);
    login::fail(&Failure::Execute(command.program[0].to_owned(), errno))
}
