//! Hand-written modules, and a host that records.
#![allow(dead_code, missing_docs, unreachable_pub)] // Each test binary uses a part of it.

use broccoli_wasm::{Engine, Failure, Host, Limits, LoadError, Module, Step};

pub const IMPORT_LOG: &str = r#"(import "broccoli" "log" (func $log (param i32 i32)))"#;
pub const IMPORT_PANIC: &str = r#"(import "broccoli" "panic" (func $panic (param i32 i32 i32)))"#;
pub const IMPORT_PROGRESS: &str = r#"(import "broccoli" "progress" (func $progress (param i32 i32)))"#;
pub const IMPORT_SUBMIT: &str = r#"(import "broccoli" "submit" (func $submit (param i32 i32) (result i64)))"#;
pub const IMPORT_BOARD: &str = r#"(import "broccoli" "board" (func $board (param i32 i32 i32 i32 i32) (result i64)))"#;
pub const IMPORT_SLEEP: &str = r#"(import "broccoli" "sleep_ms" (func $sleep (param i32)))"#;

/// Records log lines and progress. Its clock and randomness count up.
#[derive(Debug, Default)]
pub struct Quiet {
    pub lines: Vec<String>,
    pub calls: i64,
    pub progress: Vec<(u32, u32)>,
}

impl Host for Quiet {
    fn log(&mut self, text: &str) {
        self.lines.push(text.into());
    }

    fn now_ms(&mut self) -> i64 {
        self.calls += 1;
        self.calls
    }

    fn random(&mut self) -> u64 {
        self.calls += 1;
        self.calls as u64
    }

    fn progress(&mut self, done: u32, total: u32) {
        self.progress.push((done, total));
    }
}

/// A module with one task `t() -> i64`. Memory starts with `ff 61 ff 61 41 f5`.
pub fn module(extra: &str, body: &str) -> String {
    format!(
        r#"(module
            {extra}
            (memory (export "memory") 1)
            (data (i32.const 0) "\ff\61\ff\61\41\f5")
            (func (export "broccoli_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "task_t") (param i32 i32) (result i64) {body})
            (@custom "broccoli.abi" "\01")
            (@custom "broccoli.tasks" "\84\61t\80\63i64\60"))"#
    )
}

pub fn task(body: &str) -> String {
    module("", body)
}

pub fn load(wat: &str) -> Result<Module, LoadError> {
    Engine::new(Limits::host()).load(&wat::parse_str(wat).expect("is well-formed"))
}

/// Steps a run to its end. `None` if it has not ended after `fuel_max`.
pub fn run(module: &Module, function: &str, args: &[u8], fuel_max: u64) -> Option<Result<Vec<u8>, Failure>> {
    let mut run = match module.start(function, args, Quiet::default()) {
        Ok(run) => run,
        Err(failure) => return Some(Err(failure)),
    };
    while run.fuel_used() < fuel_max {
        if let Step::Done(result) = run.step(10_000) {
            return Some(result);
        }
    }
    None
}
