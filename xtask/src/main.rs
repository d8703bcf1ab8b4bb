//! Developer commands: demo, test, bench, dist, mutants.
fn main() {}
