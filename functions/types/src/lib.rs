//! Tasks for the tests of the SDK: each gives back what it got, or fails in its own way.
#![no_std]

use broccoli_sdk::prelude::*;

#[task]
fn signed(a: i8, b: i16, c: i32, d: i64) -> (i8, i16, i32, i64) {
    (a, b, c, d)
}

#[task]
fn unsigned(a: u8, b: u16, c: u32, d: u64) -> (u8, u16, u32, u64) {
    (a, b, c, d)
}

#[task]
fn floats(a: f32, b: f64) -> (f32, f64) {
    (a, b)
}

#[task]
fn plain(a: bool, b: ()) -> (bool, ()) {
    (a, b)
}

#[task]
fn owned(a: String, b: Bytes) -> (String, Bytes) {
    (a, b)
}

#[task]
fn borrowed<'a>(a: &'a str, b: &'a [u8]) -> (&'a str, &'a [u8]) {
    (a, b)
}

#[task]
fn nested(a: Option<u8>, b: Vec<Vec<i64>>) -> (Option<u8>, Vec<Vec<i64>>) {
    (a, b)
}

#[task]
fn map(a: BTreeMap<String, Num>) -> BTreeMap<String, Num> {
    a
}

/// Says what a value is, and of how many parts.
#[task]
fn kind(a: Value) -> (&'static str, u64) {
    match a.kind() {
        Kind::Null => ("null", 0),
        Kind::Bool(_) => ("bool", 0),
        Kind::Int(_) => ("int", 0),
        Kind::Float(_) => ("float", 0),
        Kind::Str(s) => ("str", s.len() as u64),
        Kind::Bytes(b) => ("bytes", b.len() as u64),
        Kind::List(items) => ("list", items.count() as u64),
        Kind::Map(items) => ("map", items.count() as u64),
        Kind::Tag(tag, _) => ("tag", tag),
    }
}

/// Reads what the node offers: clock, randomness, log.
#[task]
fn node() -> (i64, u64) {
    log("hello");
    (now_ms(), random())
}

#[task]
fn increment(n: i64) -> i64 {
    n + 1
}

#[task]
fn panics() {
    panic!("boom");
}

#[task]
fn index(list: Vec<u8>, i: u32) -> u8 {
    list[i as usize]
}

#[task]
fn fails(text: String) -> Result<(), String> {
    Err(text)
}

/// Fills memory block by block, growing one of them, and sums it up.
#[task]
fn fill(blocks: u32, bytes: u32) -> u64 {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..blocks {
        all.push(vec![1; bytes as usize]);
    }
    all.iter().flatten().map(|byte| u64::from(*byte)).sum()
}

/// Uses up the stack.
#[task]
fn dive(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 16]);
    if depth == 0 { 0 } else { dive(depth - 1) + frame[0] }
}
