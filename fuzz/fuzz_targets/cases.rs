#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conclave_bad_input::cases::run(data));
