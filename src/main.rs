//! The command `rnet`, or the CNI plugin that it is called as. What it does is in the library; here only begins and
//! ends the process.
#![no_main]

use std::ffi::{OsString, c_char, c_int};

/// Called by the C library. Its words are had from `std`, which has noted them before.
// SAFETY: the C library calls the function of this name, and of this type, once.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    rnet::start::begin();
    let words: Vec<OsString> = std::env::args_os().collect();
    let environment = |name: &str| std::env::var_os(name);
    c_int::from(match rnet::cni::called(&words, &environment) {
        Some(plugin) => rnet::cni::main(plugin, &environment),
        None => rnet::cli::main(words),
    })
}
