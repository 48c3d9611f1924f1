//! See `tidegate_fuzz::params`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::params::check(data));
