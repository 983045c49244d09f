//! The command `rnet`. What it does is in the library; here only begins and ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rnet::cli::main(std::env::args_os())
}
