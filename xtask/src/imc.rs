//! Builds for cores of RISC-V without the A extension, as in the ESP32-C3.
//!
//! Rust's target for them has no compare-and-swap, and so no `Arc`. These builds have a target of their own that differs
//! only in that: the compiler calls a function for each atomic operation, and `firmware/atomics` has the functions. The
//! file of the target is made from what the compiler knows of the original, because both must agree. As there is no
//! `core` and `alloc` built for it, Cargo builds them from source. Both are unstable features, which a stable compiler
//! accepts with `RUSTC_BOOTSTRAP`. Only these builds set it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::elf::ElfFile32;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

use crate::process::{command, output, target_dir};
use crate::{Result, tools};

/// The name of the target. It is also that of the original: esp-hal looks at it.
pub(crate) const TARGET: &str = "riscv32imc-unknown-none-elf";
/// Makes a stable compiler accept unstable features.
const BOOTSTRAP: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// How the names of the functions for atomic operations begin.
const FUNCTIONS: &str = "__sync_";

/// The opcode of all instructions of the A extension.
const AMO: u16 = 0x2f;
/// The bits of an instruction with its opcode.
const OPCODE: u16 = 0x7f;
/// These bits are all set in an instruction of 32 bits. Otherwise it has 16.
const WIDE: u16 = 0b11;

/// Adds the target to a command of Cargo that builds or lints.
///
/// # Errors
/// The source of `core` is missing, or the compiler does not know the original target.
pub(crate) fn add_target(cargo: &mut Command) -> Result {
    tools::rust_source()?;
    cargo.env(BOOTSTRAP.0, BOOTSTRAP.1).arg("--target").arg(target_file()?);
    cargo.args(["-Zjson-target-spec", "-Zbuild-std=core,alloc", "-Zbuild-std-features=optimize_for_size"]);
    Ok(())
}

/// The directory for what these builds make. Not that of other builds: the variable that they set makes Cargo compile
/// build scripts again, each time that builds with and without it take turns.
pub(crate) fn build_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("imc"))
}

/// Writes the file of the target, and returns its path.
fn target_file() -> Result<PathBuf> {
    let mut rustc = command("rustc");
    rustc.env(BOOTSTRAP.0, BOOTSTRAP.1).args(["-Zunstable-options", "--print", "target-spec-json", "--target", TARGET]);
    let original = output(&mut rustc).ok_or_else(|| format!("rustc does not describe its target {TARGET}"))?;
    let text = with_cas(&original)?;
    let folder = target_dir()?.join("targets");
    let file = folder.join(format!("{TARGET}.json"));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, text));
    written.map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(file)
}

/// The description of a target, changed: it has compare-and-swap.
fn with_cas(original: &str) -> Result<String> {
    let mut spec: serde_json::Value = serde_json::from_str(original).map_err(|error| format!("{TARGET}: {error}"))?;
    let fields = spec.as_object_mut().ok_or_else(|| format!("{TARGET}: rustc describes no target"))?;
    // It describes the original, for people.
    fields.remove("metadata");
    match fields.insert("atomic-cas".into(), true.into()) {
        Some(before) if before == false => Ok(spec.to_string()),
        _ => Err(format!("rustc has compare-and-swap for {TARGET} now: build for it without xtask/src/imc.rs")),
    }
}

/// Checks that a program has no instruction of the A extension.
///
/// # Errors
/// It has one, or it is not a program.
pub(crate) fn check(program: &Path) -> Result {
    let first = program_text(program)?.iter().find_map(|(start, code)| Some(start + amo(code).next()? as u64));
    let program = program.display();
    first.map_or(Ok(()), |at| {
        Err(format!("{program} has an atomic instruction at {at:#x}, which the core lacks: find it with objdump -d"))
    })
}

/// Checks that the functions for atomic operations are at these addresses.
///
/// # Errors
/// One is elsewhere, or there is none.
pub(crate) fn check_place(program: &Path, place: &Range<u64>) -> Result {
    let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", program.display());
    let bytes = fs::read(program).map_err(|error| cannot(&error))?;
    let file = ElfFile32::<object::Endianness>::parse(&*bytes).map_err(|error| cannot(&error))?;
    let functions = file.symbols().filter(|symbol| symbol.name().is_ok_and(|name| name.starts_with(FUNCTIONS)));
    let functions: Vec<_> = functions.filter(|symbol| symbol.is_definition()).collect();
    if functions.is_empty() {
        return Err(cannot(&"it has no functions for atomic operations: does it use firmware/atomics?"));
    }
    let elsewhere = functions.iter().find(|symbol| !place.contains(&symbol.address()));
    elsewhere.map_or(Ok(()), |symbol| {
        let (name, at) = (symbol.name().unwrap_or_default(), symbol.address());
        Err(cannot(&format!("{name} is at {at:#x}, not in RAM: build firmware/atomics with the feature rwtext")))
    })
}

/// The sections with code: the address of each, and its bytes.
fn program_text(program: &Path) -> Result<Vec<(u64, Vec<u8>)>> {
    let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", program.display());
    let bytes = fs::read(program).map_err(|error| cannot(&error))?;
    let file = ElfFile32::<object::Endianness>::parse(&*bytes).map_err(|error| cannot(&error))?;
    let code = file.sections().filter(|section| section.kind() == SectionKind::Text);
    let code = code.map(|section| section.data().map(|data| (section.address(), data.to_vec())));
    let code = code.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| cannot(&error))?;
    if code.iter().all(|(_, code)| code.is_empty()) { Err(cannot(&"it has no code")) } else { Ok(code) }
}

/// The offsets of all instructions of the A extension.
fn amo(code: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let low = u16::from_le_bytes(code.get(at..at + 2)?.try_into().ok()?);
            let here = at;
            at += if low & WIDE == WIDE { 4 } else { 2 };
            if low & OPCODE == AMO {
                return Some(here);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_instructions_are_found_where_instructions_begin() {
        let find = |halves: &[u16]| {
            let code: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            amo(&code).collect::<Vec<_>>()
        };
        // c.li a0, 0; amoadd.w a0, a1, (a2); lr.w a0, (a1); sc.w a0, a1, (a2)
        let code = [0x4501, 0x252f, 0x00b6, 0xa52f, 0x1005, 0x252f, 0x18b6];
        assert_eq!(find(&code), [2, 6, 10]);
        // lui a0, 0x252f0 has this opcode only in its second half: c.nop; lui; c.nop.
        assert_eq!(find(&[0x0001, 0x0537, 0x252f, 0x0001]), [0; 0]);
        // The same, if the length of the first instruction were wrong.
        assert_eq!(find(&[0x0001, 0x252f, 0x0001, 0x0001]), [2]);
        assert_eq!(find(&[]), [0; 0]);
    }

    #[test]
    fn only_compare_and_swap_is_added_to_the_target() {
        let original = r#"{"arch":"riscv32","atomic-cas":false,"features":"+m,+c","metadata":{"tier":2}}"#;
        assert_eq!(with_cas(original).unwrap(), r#"{"arch":"riscv32","atomic-cas":true,"features":"+m,+c"}"#);
        for original in [r#"{"arch":"riscv32","atomic-cas":true}"#, r#"{"arch":"riscv32"}"#] {
            assert!(with_cas(original).unwrap_err().starts_with("rustc has compare-and-swap"), "{original}");
        }
        assert!(with_cas("[]").is_err() && with_cas("").is_err());
    }
}
