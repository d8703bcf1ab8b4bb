//! The cost of one task, in a new instance and in the instance of the task before, in microseconds of wall time.
//!
//! `cargo run --release -p broccoli-wasm --example speed`

use std::time::Instant;

use broccoli_wasm::{Engine, Limits, Module, NoHost, Spare, Step};

fn main() {
    let wasm = include_bytes!("../../../functions/tasks.wasm");
    let engine = Engine::new(Limits::host());
    let start = Instant::now();
    let module = engine.load(wasm).expect("the example module loads");
    println!("load of {} bytes  {:.1} us", wasm.len(), start.elapsed().as_secs_f64() * 1e6);

    let word = [&[0x81, 0x6a], "microchips".as_bytes()].concat();
    let blob = [&[0x81, 0x59, 0x27, 0x10][..], &[7; 10_000]].concat();
    let cases: [(&str, &[u8], u32); 5] = [
        ("add", &[0x82, 4, 4], 100_000),
        ("mapper", &word, 100_000),
        ("echo", &blob, 10_000),
        ("fib", &[0x81, 0x18, 27], 5),
        ("primes", &[0x81, 0x19, 0x4e, 0x20], 20),
    ];
    for (function, args, rounds) in cases {
        let [new, kept] = [false, true].map(|keep| best_of_5(&module, function, args, rounds, keep));
        println!("{function:8} {new:9.2} us in a new instance, {kept:9.2} us in a kept one");
    }
}

fn best_of_5(module: &Module, function: &str, args: &[u8], rounds: u32, keep: bool) -> f64 {
    let (mut best, mut spare) = (f64::INFINITY, Spare::new());
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..rounds {
            let mut run = module.start_with(function, args, NoHost, &mut spare).expect("starts");
            while !matches!(run.step(1_000_000), Step::Done(result) if result.is_ok()) {}
            if keep {
                run.keep(&mut spare);
            }
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    }
    best
}
