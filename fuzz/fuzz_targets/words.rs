#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rnet::fuzz::words(bytes));
