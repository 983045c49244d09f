//! The command `rnet`, or the CNI plugin that it is called as. What it does is in the library; here only begins and
//! ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let environment = |name: &str| std::env::var_os(name);
    match rnet::cni::called(&words, &environment) {
        Some(plugin) => rnet::cni::main(plugin, &environment),
        None => rnet::cli::main(words),
    }
}
