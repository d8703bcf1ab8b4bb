//! The example module `tasks`: what the examples of the documentation, the demo and the
//! benchmarks run.
#![no_std]

use broccoli_sdk::prelude::*;

/// Adds two numbers.
#[task]
fn add(x: Num, y: Num) -> Result<Num, &'static str> {
    x.add(y)
}

/// Subtracts the second number from the first.
#[task]
fn sub(x: Num, y: Num) -> Result<Num, &'static str> {
    x.sub(y)
}

/// Multiplies two numbers.
#[task]
fn mul(x: Num, y: Num) -> Result<Num, &'static str> {
    x.mul(y)
}

/// Sums a list of numbers.
#[task]
fn tsum(mut numbers: List<Num>) -> Result<Num, &'static str> {
    numbers.try_fold(Num::Int(0), Num::add)
}

/// Sums a list of numbers, as `tsum` does.
#[task]
fn xsum(numbers: List<Num>) -> Result<Num, &'static str> {
    tsum(numbers)
}

/// Gives its argument back.
#[task]
fn identity(value: Value) -> Value {
    value
}

/// Gives its argument back; for measuring.
#[task]
fn echo(value: Value) -> Value {
    value
}

/// Joins two texts.
#[task]
fn concat(a: &str, b: &str) -> String {
    let mut joined = String::with_capacity(a.len() + b.len());
    joined.push_str(a);
    joined.push_str(b);
    joined
}

/// Counts a word once if it is longer than three letters.
#[task]
fn mapper(word: &str) -> Option<(&str, u8)> {
    (word.chars().take(4).count() == 4).then_some((word, 1))
}

/// Fails with a message.
#[task]
fn fail(msg: &str) -> Result<(), &str> {
    Err(msg)
}

/// Sleeps, then gives a value back.
#[task(name = "sleep_ms")]
fn sleep_then(ms: u32, value: Value) -> Value {
    sleep_ms(ms);
    value
}

/// Works for n rounds and gives n back.
#[task]
fn spin(n: u64) -> u64 {
    let mut state = n;
    for _ in 0..n {
        // One round of a xorshift generator: each depends on the one before.
        state ^= state << 13;
        state ^= state >> 7;
        state = core::hint::black_box(state ^ state << 17);
    }
    n
}

/// The n-th Fibonacci number, by recursion.
#[task]
fn fib(n: u32) -> u64 {
    if n < 2 { n.into() } else { fib(n - 1) + fib(n - 2) }
}

/// Counts the primes below n.
#[task]
fn primes(n: u32) -> u32 {
    let is_prime = |k: &u32| {
        let k = *k;
        (2..).take_while(|d| u64::from(*d) * u64::from(*d) <= k.into()).all(|d| !k.is_multiple_of(d))
    };
    (2..n).filter(is_prime).count() as u32
}
