//! Prints the table as this machine computes it.

fn main() {
    compute_table::run(|line| println!("{line}"));
}
