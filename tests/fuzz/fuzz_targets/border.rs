#![no_main]
#[path = "../border.rs"]
mod border;
libfuzzer_sys::fuzz_target!(|data: &[u8]| border::as_mail_user(|| border::border(data)));
