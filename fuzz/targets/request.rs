//! See `tidegate_fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::request::check(data));
