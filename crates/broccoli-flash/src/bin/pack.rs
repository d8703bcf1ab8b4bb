//! Packs a program into an image, for `cargo xtask firmware`: `broccoli-pack CHIP PROGRAM PARTITIONS IMAGE`

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [chip, program, partitions, out] = args else {
        return Err("usage: broccoli-pack CHIP PROGRAM PARTITIONS IMAGE".into());
    };
    let image = broccoli_flash::pack(chip.parse()?, &fs::read(program)?, Path::new(partitions))?;
    fs::write(out, image.bytes())?;
    let (program, slot) = image.program_and_slot();
    println!(
        "{out}: {} bytes; the program has {program} of {slot} bytes, {} %",
        image.bytes().len(),
        program * 100 / slot
    );
    Ok(())
}
