//! The text form: no text causes a panic or hangs, and a printed canvas means the same.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_text::{SOURCE_BYTES_MAX, parse, print};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    match parse(source) {
        Ok(program) => {
            let printed = print(&program.canvas);
            if printed.len() <= SOURCE_BYTES_MAX {
                assert_eq!(parse(&printed).map(|again| again.canvas), Ok(program.canvas), "{printed}");
            }
        }
        Err(error) => assert!(error.line > 0 && error.column > 0 && !error.to_string().is_empty()),
    }
});
