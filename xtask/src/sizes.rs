//! `cargo xtask sizes`: the sizes of the firmware for QEMU, and their limits.
//!
//! The sizes of sections are those of the program. A guest that has run a batch and a word count reports its heap and
//! its stack. A separate program (`count.rs` of the firmware) counts instructions, twice; both counts must be the
//! same.

use std::fs;

use object::read::elf::ElfFile32;
use object::{Object as _, ObjectSection as _};

use crate::Result;
use crate::chaos::cluster::{Cluster, Programs, Server};
use crate::guests;
use crate::qemu::{Core, Firmware};

/// The limits of bytes and instructions of a core, a little above the measured values. Raise one only with a reason.
struct Limits {
    code: u64,
    statics: u64,
    /// What an interrupt finds on the stack differs from run to run.
    stack: u64,
    /// Of loading a module, of a task of nothing in a new instance and in a kept one, and of `mapper` in a kept one.
    instructions: [u64; 4],
}

/// The limit of the heap, the same for all cores. The number of waiting messages differs from run to run.
const HEAP_MAX: u64 = 65_536;
/// How many guests are measured at most.
const LIVES_MAX: usize = 5;

const fn limits(core: Core) -> Limits {
    match core {
        Core::Imac => Limits {
            code: 1_114_000,
            statics: 46_500,
            stack: 16_384,
            instructions: [6_000_000, 90_000, 30_000, 43_000],
        },
        // `core` and `alloc` are optimised for size, and each atomic operation is a call.
        Core::Imc => Limits {
            code: 1_090_000,
            statics: 48_000,
            stack: 16_384,
            instructions: [6_200_000, 96_000, 31_000, 44_000],
        },
        // The interpreter is optimised for speed. Each interrupt saves windows of registers, and so do many calls, which
        // the counted instructions contain. They are counted in steps of 100.
        Core::Xtensa => Limits {
            code: 1_970_000,
            statics: 20_000,
            stack: 17_408,
            instructions: [17_000_000, 360_000, 110_000, 142_000],
        },
    }
}

/// The name of a measurement, its value, and its limit.
type Row = (&'static str, u64, u64);

/// Builds the firmware for each core, measures and prints it.
///
/// # Errors
/// If a value exceeds its limit, or a second run has other numbers of instructions.
pub(crate) fn run() -> Result {
    let programs = Programs::build(false)?;
    let mut over = Vec::new();
    for core in Core::ALL {
        let firmware = core.build()?;
        let mut rows = sections(&firmware)?.to_vec();
        rows.extend(memory(&programs, &firmware)?);
        rows.extend(instructions(&firmware, limits(core).instructions)?);
        println!("{:34} {:>12} {:>12}", format!("core {}", core.name()), "seen", "at most");
        for (what, seen, max) in rows {
            println!("{what:34} {seen:>12} {max:>12}");
            if seen > max {
                over.push(format!("{what} of core {}", core.name()));
            }
        }
    }
    if over.is_empty() { Ok(()) } else { Err(format!("over the limit: {}", over.join(", "))) }
}

/// Bytes in flash and in memory, of the sections of a program.
fn sections(firmware: &Firmware) -> Result<[Row; 2]> {
    let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", firmware.program.display());
    let bytes = fs::read(&firmware.program).map_err(|error| cannot(&error))?;
    let file = ElfFile32::<object::Endianness>::parse(&*bytes).map_err(|error| cannot(&error))?;
    let size = |names: &[&str]| -> u64 {
        let sections = file.sections().filter(|section| section.name().is_ok_and(|name| names.contains(&name)));
        sections.map(|section| section.size()).sum()
    };
    let max = limits(firmware.core);
    Ok([
        ("code and constants, bytes", size(&[".text", ".init.rust", ".rodata"]), max.code),
        ("statics, bytes", size(&[".data", ".bss"]), max.statics),
    ])
}

/// The peaks of the heap and of the stack in a guest's life, in bytes.
///
/// They depend on what waits when a message arrives. A busy machine only adds to it, so up to [`LIVES_MAX`] lives are
/// tried for one within the limits.
fn memory(programs: &Programs, firmware: &Firmware) -> Result<[Row; 2]> {
    let mut rows = peaks(programs, firmware)?;
    for _ in 1..LIVES_MAX {
        if rows.iter().all(|(_, seen, max)| seen <= max) {
            break;
        }
        println!("over a limit: heap {} bytes, stack {} bytes; another guest is measured", rows[0].1, rows[1].1);
        rows = peaks(programs, firmware)?;
    }
    Ok(rows)
}

/// The peaks of one life, in a cluster of its own: in one that knows an earlier guest they are 4 KB higher.
fn peaks(programs: &Programs, firmware: &Firmware) -> Result<[Row; 2]> {
    let cluster = Cluster::new(programs, Server::Mosquitto, "sizes")?;
    let line = guests::life_of_one(&cluster, firmware)?;
    let number = |what: &str| numbers_after(&line, what).first().copied();
    let (heap, stack) = number("peak of the heap: ").zip(number("of the stack: ")).ok_or("the guest tells no peaks")?;
    Ok([("heap at most, bytes", heap, HEAP_MAX), ("stack at most, bytes", stack, limits(firmware.core).stack)])
}

/// Numbers of instructions, for each measurement, with their limits.
fn instructions(firmware: &Firmware, [load, new, kept, mapper]: [u64; 4]) -> Result<[Row; 4]> {
    let said = firmware.counted("count")?;
    let again = firmware.counted("count")?;
    if !agree(&said, &again, count_error(firmware.core)) {
        return Err(format!("a second run counts other instructions than the first. First: {said}Second: {again}"));
    }
    // Each task runs twice. The later run uses the instance of the first one.
    let row = |what: &'static str, before: &str, at: usize, max: u64| {
        let counted = numbers_after(&said, before).get(at).copied();
        counted.map(|seen| (what, seen, max)).ok_or_else(|| format!("no {before:?} in {said}"))
    };
    Ok([
        row("loading a module, instructions", "load of the example module: ", 0, load)?,
        row("the first task, of nothing", "a task that does nothing: ", 0, new)?,
        row("the next task, of nothing", "a task that does nothing: ", 1, kept)?,
        row("mapper, as the next task", "mapper: ", 1, mapper)?,
    ])
}

/// How much two counts of the same instructions may differ.
const fn count_error(core: Core) -> u64 {
    match core {
        Core::Imac | Core::Imc => 0,
        // A count is a multiple of 100, and the first character of a line waits for the UART a varying number of times.
        Core::Xtensa => 500,
    }
}

/// Whether two texts have the same numbers, within an error.
fn agree(one: &str, other: &str, error: u64) -> bool {
    let [one, other] = [one, other].map(|text| text.lines().flat_map(numbers).collect::<Vec<_>>());
    one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| one.abs_diff(*other) <= error)
}

/// The whole numbers of the line that has `before`, from there on.
fn numbers_after(text: &str, before: &str) -> Vec<u64> {
    let line = text.split_once(before).map_or("", |(_, rest)| rest.lines().next().unwrap_or_default());
    numbers(line).collect()
}

fn numbers(line: &str) -> impl Iterator<Item = u64> {
    line.split(|end: char| !end.is_ascii_digit()).filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{agree, numbers_after};

    #[test]
    fn counts_agree_within_an_error() {
        assert!(agree("load: 100\nmapper: 7, later 5\n", "load: 100\nmapper: 7, later 5\n", 0));
        assert!(agree("load: 100\nmapper: 700\n", "load: 200\nmapper: 600\n", 100));
        assert!(!agree("load: 100\n", "load: 201\n", 100));
        assert!(!agree("load: 100\n", "load: 100\nmapper: 7\n", 100));
    }

    #[test]
    fn numbers_are_read_from_what_a_guest_says() {
        let said = "load: 17 instructions\nmapper: 5 instructions, later 4\npeak of the heap: 9 bytes of 10; of the stack: 8 bytes\n";
        assert_eq!(numbers_after(said, "mapper: "), [5, 4]);
        assert_eq!(numbers_after(said, "peak of the heap: ").first(), Some(&9));
        assert_eq!(numbers_after(said, "of the stack: "), [8]);
        assert!(numbers_after(said, "load of: ").is_empty());
    }
}
