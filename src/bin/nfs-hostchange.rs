//! The administrator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    nfs_hostchange::admin::run(std::env::args_os())
}
