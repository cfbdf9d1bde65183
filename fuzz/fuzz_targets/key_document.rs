#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dekseal_fuzz::key_document(data));

#[cfg(not(fuzzing))]
fn main() {}
