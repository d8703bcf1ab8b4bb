//! `cargo xtask compute`: the compilers for small cores make code that computes what this machine computes.
//!
//! The table is the crate `firmware/compute`. A program beside each firmware prints it in QEMU. A row whose code is
//! wrong has another digest than here, or is missing.

use crate::process::{cargo, output, target_dir};
use crate::qemu::Core;
use crate::{Result, in_root};

/// Compares all rows of the table, on these kinds of cores.
///
/// # Errors
/// It cannot be computed, or a row differs.
pub(crate) fn run(cores: &[Core]) -> Result {
    let mut here = cargo("run --quiet --release --locked --manifest-path");
    here.arg(in_root("firmware/compute/Cargo.toml")).arg("--target-dir").arg(target_dir()?);
    let here = output(&mut here).ok_or("firmware/compute does not build: run `cargo run` there to see why")?;
    for core in cores {
        let there = core.build()?.alone("compute")?;
        compare(&here, &there).map_err(|error| format!("core {}: {error}", core.name()))?;
        println!("{}: {} rows as on this machine", core.name(), here.lines().count());
    }
    Ok(())
}

/// # Errors
/// They differ. The text has the first row that does, as it is here and there.
fn compare(here: &str, there: &str) -> Result {
    let mut there = there.lines();
    for row in here.lines() {
        match there.next() {
            Some(other) if other == row => {}
            other => return Err(format!("computes {:?}, this machine {row:?}", other.unwrap_or_default())),
        }
    }
    there.next().map_or(Ok(()), |more| Err(format!("prints {more:?} after the table")))
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn each_row_must_be_the_same() {
        let here = "a: 1\nb: 2\n";
        assert_eq!(compare(here, "a: 1\nb: 2\n"), Ok(()));
        for (there, said) in [("a: 1\nb: 3\n", "\"b: 3\""), ("a: 1\n", "\"\""), ("a: 1\nb: 2\nc: 3\n", "\"c: 3\"")] {
            let error = compare(here, there).expect_err(there);
            assert!(error.contains(said), "{error}");
        }
    }
}
