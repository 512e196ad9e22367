#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| railbird_fuzz::mp4(data));
