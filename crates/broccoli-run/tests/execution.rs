//! A run, step by step: the result of each step, and what the shell does then.

use std::cell::Cell;
use std::time::Duration;

use broccoli_abi::{HostCall, SubmitAnswer};
use broccoli_proto::message::Failure;
use broccoli_proto::{Cause, Cbor};
use broccoli_run::{
    About, Ask, Builtins, Code, Execution, Items, Library, Machine, MachineVitals, News, Pace, RunLimits, Spare, Step,
    builtin_modules,
};
use broccoli_wasm::{Engine, Limits, Module};

thread_local! {
    /// The clock of the machine that a test runs on, in microseconds.
    static NOW_US: Cell<u64> = const { Cell::new(1_000_000) };
}

const MACHINE: Machine = Machine { now_us: || NOW_US.get(), unix_ms: || None };
/// Fuel of a slice: less than usual, but enough for many instructions of a hand-written task.
const FUEL: u64 = 10_000;

fn pass(ms: u64) {
    NOW_US.set(NOW_US.get() + ms * 1_000);
}

/// A module with the task `t() -> i64`. In its memory, the number 7 is at address 8, a text at 16.
fn module(imports: &str, body: &str) -> Module {
    let wat = format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (data (i32.const 8) "\07")
            (data (i32.const 16) "hello")
            (func (export "broccoli_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "task_t") (param i32 i32) (result i64) {body})
            (@custom "broccoli.abi" "\01")
            (@custom "broccoli.tasks" "\84\61t\80\63i64\60"))"#
    );
    let wasm = wat::parse_str(wat).expect("is well-formed");
    Engine::new(Limits::host()).load(&wasm).expect("is a module")
}

/// Returns 7.
const SEVEN: &str = "(i64.const 0x800000001)";
/// Never ends.
const ROUND: &str = "(loop $again (br $again)) (i64.const 0)";
const SLEEP: &str = r#"(import "broccoli" "sleep_ms" (func $sleep (param i32)))"#;
const LOG: &str = r#"(import "broccoli" "log" (func $log (param i32 i32)))"#;
const PROGRESS: &str = r#"(import "broccoli" "progress" (func $progress (param i32 i32)))"#;
const SUBMIT: &str = r#"(import "broccoli" "submit" (func $submit (param i32 i32) (result i64)))"#;
const BOARD: &str = r#"(import "broccoli" "board" (func $board (param i32 i32 i32 i32 i32) (result i64)))"#;

fn execution(code: Code, function: &str, args: Cbor, bin: bool, limits: RunLimits) -> Execution {
    let items = Items::new(args, bin, 1_000).expect("is a list");
    Execution::new(code, function.into(), items, limits, MACHINE, 1)
}

/// One call of the task of a module.
fn wasm(imports: &str, body: &str) -> Execution {
    let code = Code::Wasm(module(imports, body));
    execution(code, "t", Cbor::empty_array(), false, RunLimits::default())
}

fn builtin(function: &str, args: Cbor) -> Execution {
    let about = About {
        name: "n1",
        slots: 2,
        labels: &["led".into()],
        board: "test",
        os: "none",
        arch: "abacus",
        version: "1.2.3",
        reboot: Err("not here"),
    };
    builtin_of(about, function, args)
}

fn builtin_of(about: About<'_>, function: &str, args: Cbor) -> Execution {
    let library = Library::new(Builtins::new(about, MACHINE));
    let modules = builtin_modules();
    let module = modules.iter().find(|module| module.functions.iter().any(|known| known.name == function));
    let code = library.code(&module.expect("is a built-in function").id()).expect("is there");
    execution(code, function, args, false, RunLimits::default())
}

fn step(execution: &mut Execution) -> Step {
    execution.step(&mut Pace::new(5_000, FUEL), &mut Spare::default())
}

fn news(execution: &mut Execution) -> Vec<News> {
    let mut all = Vec::new();
    execution.take_news(|news| all.push(news));
    all
}

fn seven() -> Step {
    Step::Ended(Ok(Cbor::encode(&7)))
}

fn failed(cause: Cause, text: &str) -> Step {
    Step::Ended(Err(Failure::new(cause, text)))
}

#[test]
fn a_short_run_ends_in_its_first_step() {
    let mut run = wasm("", SEVEN);
    assert_eq!(run.due_us(), 0);
    assert_eq!(step(&mut run), seven());
    assert_eq!(step(&mut run), failed(Cause::Crashed, "the run has ended"));
}

#[test]
fn a_long_run_yields_after_each_slice_until_it_is_aborted() {
    let mut run = wasm("", ROUND);
    for _ in 0..3 {
        assert_eq!((step(&mut run), run.due_us()), (Step::Yielded, 0));
    }
    run.abort();
    assert_eq!(step(&mut run), failed(Cause::Revoked, "stopped"));
}

#[test]
fn a_slice_teaches_the_pace_of_the_next() {
    let (mut pace, mut run) =
        (Pace::new(5_000, FUEL), wasm(SLEEP, "(call $sleep (i32.const 1)) (loop $l (br $l)) unreachable"));
    let before = format!("{pace:?}");
    assert_eq!(run.step(&mut pace, &mut Spare::default()), Step::Waits);
    assert_eq!(format!("{pace:?}"), before, "a slice that was not used up");
    pass(1);
    assert_eq!(run.step(&mut pace, &mut Spare::default()), Step::Yielded);
    // The clock of the test does not advance, so the fuel is doubled.
    assert_eq!(format!("{pace:?}"), format!("{:?}", Pace::new(5_000, 2 * FUEL)));
}

#[test]
fn a_sleeping_run_waits_until_its_time_has_come() {
    let mut run = wasm(SLEEP, &format!("(call $sleep (i32.const 20)) {SEVEN}"));
    assert_eq!(step(&mut run), Step::Waits);
    assert_eq!(run.due_us(), NOW_US.get() + 20_000);
    pass(19);
    assert_eq!(step(&mut run), Step::Waits);
    pass(1);
    assert_eq!(step(&mut run), seven());
}

#[test]
fn a_sleeping_run_is_aborted_at_once() {
    let mut run = wasm(SLEEP, &format!("(call $sleep (i32.const 20)) {SEVEN}"));
    assert_eq!(step(&mut run), Step::Waits);
    run.abort();
    assert_eq!((run.due_us(), step(&mut run)), (0, failed(Cause::Revoked, "stopped")));
}

#[test]
fn what_a_task_says_is_told_before_its_end() {
    let mut run = wasm(LOG, &format!("(call $log (i32.const 16) (i32.const 5)) {SEVEN}"));
    assert_eq!(step(&mut run), seven());
    assert_eq!(news(&mut run), [News::Logged("hello".into())]);
    assert_eq!(news(&mut run), []);
}

#[test]
fn a_line_of_4_kib_is_passed_on_and_no_more_of_a_longer_one() {
    let body = format!(
        "(memory.fill (i32.const 16) (i32.const 97) (i32.const 6000)) (call $log (i32.const 16) (i32.const 6000)) {SEVEN}"
    );
    let mut run = wasm(LOG, &body);
    assert_eq!(step(&mut run), seven());
    assert_eq!(news(&mut run), [News::Logged("a".repeat(4_096))]);
}

#[test]
fn progress_is_told_while_the_task_sleeps_and_at_the_end() {
    let say = |done: u32, ms: u32| {
        format!("(call $progress (i32.const {done}) (i32.const 9)) (call $sleep (i32.const {ms}))")
    };
    let body = format!("{} {} (call $progress (i32.const 9) (i32.const 9)) {SEVEN}", say(1, 1_000), say(2, 10));
    let mut run = wasm(&format!("{SLEEP} {PROGRESS}"), &body);
    assert_eq!((step(&mut run), news(&mut run)), (Step::Waits, vec![]));
    // The progress is passed on after 250 ms, although the task still sleeps.
    assert_eq!(run.due_us(), NOW_US.get() + 250_000);
    pass(250);
    assert_eq!((step(&mut run), news(&mut run)), (Step::Waits, vec![News::Progress(1, 9)]));
    pass(750);
    assert_eq!((step(&mut run), news(&mut run)), (Step::Waits, vec![News::Progress(2, 9)]));
    pass(10);
    assert_eq!((step(&mut run), news(&mut run)), (seven(), vec![News::Progress(9, 9)]));
}

#[test]
fn a_task_that_submits_waits_for_the_answer() {
    let body = format!("(drop (call $submit (i32.const 16) (i32.const 5))) {SEVEN}");
    let mut run = wasm(&format!("{SUBMIT} {LOG}"), &body);
    assert_eq!(step(&mut run), Step::Ask(Ask::Submit(b"hello".to_vec())));
    assert_eq!(step(&mut run), Step::Waits);
    run.answer_submit(SubmitAnswer::Accepted, "");
    assert_eq!((step(&mut run), news(&mut run)), (seven(), vec![]));
}

#[test]
fn the_reason_of_a_refused_submit_is_logged() {
    let body = format!("(drop (call $submit (i32.const 16) (i32.const 5))) {SEVEN}");
    let mut run = wasm(SUBMIT, &body);
    assert_eq!(step(&mut run), Step::Ask(Ask::Submit(b"hello".to_vec())));
    run.answer_submit(SubmitAnswer::QueueFull, "no room");
    assert_eq!(step(&mut run), seven());
    assert_eq!(news(&mut run), [News::Logged("submit: no room".into())]);
}

#[test]
fn a_task_gets_what_the_board_answers() {
    // Asks for pin 4. Succeeds only if the answer is 1.
    let body = format!(
        "(if (i64.ne (call $board (i32.const 2) (i32.const 4) (i32.const 0) (i32.const 512) (i32.const 64)) (i64.const 1))
            (then unreachable)) {SEVEN}"
    );
    let mut run = wasm(BOARD, &body);
    assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::GpioRead { pin: 4 })));
    run.answer_board(Ok(1));
    assert_eq!(step(&mut run), seven());
    let mut run = wasm(BOARD, &body);
    assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::GpioRead { pin: 4 })));
    run.answer_board(Err("no pin"));
    assert!(matches!(step(&mut run), Step::Ended(Err(failure)) if failure.cause == Cause::Crashed));
}

#[test]
fn fuel_and_time_end_a_run_with_the_limit_named() {
    let limits = RunLimits { fuel_max: 25_000, time_max: Duration::from_millis(200) };
    let code = |body| Code::Wasm(module(SLEEP, body));
    let mut run = execution(code(ROUND), "t", Cbor::empty_array(), false, limits);
    let steps: Vec<Step> = std::iter::repeat_with(|| step(&mut run)).take(4).collect();
    assert_eq!(steps[..2], [Step::Yielded, Step::Yielded]);
    let end = steps.iter().find(|step| **step != Step::Yielded);
    let Some(Step::Ended(Err(failure))) = end else { panic!("it goes on: {steps:?}") };
    assert!(failure.text.starts_with("out of fuel: used 25") && failure.text.ends_with(" of 25000"), "{failure:?}");

    let too_long = failed(Cause::TimedOut, "ran longer than this node's limit of 0.2 s");
    let mut run =
        execution(code("(call $sleep (i32.const 60000)) unreachable"), "t", Cbor::empty_array(), false, limits);
    assert_eq!(step(&mut run), Step::Waits);
    assert_eq!(run.due_us(), NOW_US.get() + 200_000);
    pass(200);
    assert_eq!(step(&mut run), too_long);
}

#[test]
fn the_limit_of_time_counts_while_nobody_answers() {
    let limits = RunLimits { time_max: Duration::from_millis(200), ..RunLimits::default() };
    let code = Code::Wasm(module(SUBMIT, "(call $submit (i32.const 16) (i32.const 5))"));
    let mut run = execution(code, "t", Cbor::empty_array(), false, limits);
    assert!(matches!(step(&mut run), Step::Ask(Ask::Submit(_))));
    assert_eq!(run.due_us(), NOW_US.get() + 200_000);
    pass(200);
    assert_eq!(step(&mut run), failed(Cause::TimedOut, "ran longer than this node's limit of 0.2 s"));
}

#[test]
fn several_calls_of_a_bin_end_in_one_slice() {
    let lists = Cbor::encode(&[[0u8; 0]; 3]);
    let mut run = execution(Code::Wasm(module("", SEVEN)), "t", lists.clone(), true, RunLimits::default());
    assert_eq!(step(&mut run), Step::Ended(Ok(Cbor::encode(&[7, 7, 7]))));
    // With little fuel, each call needs its own slice.
    let mut run = execution(Code::Wasm(module("", SEVEN)), "t", lists, true, RunLimits::default());
    let mut pace = Pace::new(5_000, 1).at_least(1);
    let steps =
        std::iter::from_fn(|| matches!(run.step(&mut pace, &mut Spare::default()), Step::Yielded).then_some(()))
            .count();
    assert!(steps >= 3, "{steps}");
}

/// Also the next run, and one that continues when another one has left its instance.
#[test]
fn no_call_sees_what_an_earlier_one_left() {
    let logs = format!(r#"{LOG} {SLEEP} (global $calls (export "calls") (mut i32) (i32.const 0))"#);
    // Doubles its result, and adds to the number of calls, which must be 0.
    let body = "(call $log (i32.const 16) (i32.const 5))
        (call $sleep (i32.const 100))
        (i32.store8 (i32.const 8) (i32.add (i32.mul (i32.load8_u (i32.const 8)) (i32.const 2)) (global.get $calls)))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (i64.const 0x800000001)";
    let code = Code::Wasm(module(&logs, body));
    let lists = Cbor::encode(&[[0u8; 0]; 3]);
    let (mut spare, mut pace) = (Spare::default(), Pace::new(5_000, FUEL));
    let mut runs = [0; 2].map(|_| execution(code.clone(), "t", lists.clone(), true, RunLimits::default()));
    for _ in 0..3 {
        for run in &mut runs {
            assert_eq!(run.step(&mut pace, &mut spare), Step::Waits);
            assert_eq!(news(run), [News::Logged("hello".into())]);
        }
        pass(100);
    }
    for run in &mut runs {
        assert_eq!(run.step(&mut pace, &mut spare), Step::Ended(Ok(Cbor::encode(&[14, 14, 14]))));
        assert_eq!(news(run), []);
    }
}

#[test]
fn the_item_of_a_bin_that_fails_is_named() {
    let lists = Cbor::encode(&([0u8; 0], [1u8]));
    let mut run = execution(Code::Wasm(module("", SEVEN)), "t", lists, true, RunLimits::default());
    assert_eq!(step(&mut run), failed(Cause::Unfit, "item 1: t() -> i64 takes 0 arguments, got 1"));
}

/// Two calls of a function of the shell, after the first request.
fn functions(limits: RunLimits) -> Execution {
    let lists = Cbor::encode(&([1u8], [2u8]));
    let mut run = execution(Code::Shell, "f", lists, true, limits);
    assert_eq!(step(&mut run), Step::Ask(Ask::Function(Cbor::encode(&[1u8]))));
    assert_eq!(step(&mut run), Step::Waits);
    run
}

#[test]
fn a_function_of_the_shell_is_called_once_for_each_item() {
    let mut run = functions(RunLimits::default());
    run.answer_call(Ok(Cbor::encode(&10)));
    assert_eq!(step(&mut run), Step::Yielded);
    assert_eq!(step(&mut run), Step::Ask(Ask::Function(Cbor::encode(&[2u8]))));
    run.answer_call(Ok(Cbor::encode(&20)));
    assert_eq!(step(&mut run), Step::Ended(Ok(Cbor::encode(&[10, 20]))));
}

#[test]
fn limits_and_aborts_count_between_the_items_of_a_function_and_not_after_the_last() {
    let limits = RunLimits { time_max: Duration::from_millis(200), ..RunLimits::default() };
    let mut run = functions(limits);
    pass(300);
    run.answer_call(Ok(Cbor::encode(&10)));
    assert_eq!(step(&mut run), Step::Yielded);
    assert_eq!(step(&mut run), failed(Cause::TimedOut, "ran longer than this node's limit of 0.2 s"));

    let mut run = functions(limits);
    run.answer_call(Ok(Cbor::encode(&10)));
    assert_eq!(step(&mut run), Step::Yielded);
    assert!(matches!(step(&mut run), Step::Ask(Ask::Function(_))));
    pass(300);
    run.abort();
    run.answer_call(Ok(Cbor::encode(&20)));
    assert_eq!(step(&mut run), Step::Ended(Ok(Cbor::encode(&[10, 20]))));

    let mut run = functions(limits);
    run.abort();
    run.answer_call(Ok(Cbor::encode(&10)));
    assert_eq!(step(&mut run), Step::Yielded);
    assert_eq!(step(&mut run), failed(Cause::Revoked, "stopped"));
}

#[test]
fn results_of_a_bin_have_a_limit_together() {
    let mut run = functions(RunLimits::default());
    run.answer_call(Ok(Cbor::encode(&"x".repeat(900))));
    assert_eq!(step(&mut run), Step::Yielded);
    assert!(matches!(step(&mut run), Step::Ask(Ask::Function(_))));
    run.answer_call(Ok(Cbor::encode(&"x".repeat(900))));
    let failure = Failure::result_too_large(1_806, 1_000);
    let text = format!("item 1: {}", failure.text);
    assert_eq!(step(&mut run), Step::Ended(Err(Failure { text, ..failure })));
}

#[test]
fn ping_and_info_answer_at_once() {
    assert_eq!(step(&mut builtin("ping", Cbor::empty_array())), Step::Ended(Ok(Cbor::encode(&"pong"))));
    let Step::Ended(Ok(info)) = step(&mut builtin("info", Cbor::empty_array())) else { panic!("no answer") };
    let mut info = minicbor::Decoder::new(info.as_bytes());
    assert_eq!(info.map().ok(), Some(Some(7)));
    assert_eq!((info.str().ok(), info.str().ok()), (Some("arch"), Some("abacus")));
    let unfit = failed(Cause::Unfit, "ping() -> str takes 0 arguments, got 1");
    assert_eq!(step(&mut builtin("ping", Cbor::encode(&[1]))), unfit);
}

#[test]
fn vitals_ask_the_board_and_then_the_machine() {
    let mut run = builtin("vitals", Cbor::empty_array());
    pass(2_500);
    assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::TemperatureRead)));
    run.answer_board(Ok(21_500));
    assert_eq!(step(&mut run), Step::Ask(Ask::Vitals));
    run.answer_vitals(MachineVitals { load: None, memory_bytes: Some(4), memory_free_bytes: Some(3) });
    let Step::Ended(Ok(vitals)) = step(&mut run) else { panic!("no answer") };
    let mut vitals = minicbor::Decoder::new(vitals.as_bytes());
    assert_eq!(vitals.map().ok(), Some(Some(4)));
    for (name, value) in [("memory_bytes", 4), ("memory_free_bytes", 3)] {
        assert_eq!((vitals.str().ok(), vitals.u32().ok()), (Some(name), Some(value)));
    }
    assert_eq!((vitals.str().ok(), vitals.f64().ok()), (Some("temperature_c"), Some(21.5)));
    assert_eq!((vitals.str().ok(), vitals.u64().ok()), (Some("uptime_s"), Some(2)));

    // A board without a sensor: the temperature is left out.
    let mut run = builtin("vitals", Cbor::empty_array());
    assert!(matches!(step(&mut run), Step::Ask(Ask::Board(_))));
    run.answer_board(Err("no sensor"));
    assert_eq!(step(&mut run), Step::Ask(Ask::Vitals));
    run.answer_vitals(MachineVitals::default());
    let Step::Ended(Ok(vitals)) = step(&mut run) else { panic!("no answer") };
    assert_eq!(vitals.as_bytes(), b"\xa1\x68uptime_s\x00");
}

#[test]
fn pins_are_read_and_written() {
    let mut run = builtin("gpio_read", Cbor::encode(&[7]));
    assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::GpioRead { pin: 7 })));
    run.answer_board(Ok(1));
    assert_eq!(step(&mut run), Step::Ended(Ok(Cbor::encode(&true))));
    let mut run = builtin("gpio_write", Cbor::encode(&(9, true)));
    assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::GpioWrite { pin: 9, high: true })));
    run.answer_board(Err("not on this board"));
    assert_eq!(step(&mut run), failed(Cause::Returned, "not on this board"));
}

#[test]
fn only_who_may_is_rebooted() {
    let mut run = builtin("reboot", Cbor::empty_array());
    assert_eq!((step(&mut run), news(&mut run)), (failed(Cause::Returned, "not here"), vec![]));
    let about = About {
        name: "n1",
        slots: 1,
        labels: &[],
        board: "none",
        os: "none",
        arch: "abacus",
        version: "1.2.3",
        reboot: Ok(()),
    };
    let mut run = builtin_of(about, "reboot", Cbor::empty_array());
    assert_eq!((step(&mut run), news(&mut run)), (Step::Ended(Ok(Cbor::null())), vec![News::Reboot]));
}

#[test]
fn a_blink_is_on_for_half_of_each_period() {
    let mut run = builtin("blink", Cbor::encode(&(2, 30)));
    for on in [true, false, true, false] {
        assert_eq!(step(&mut run), Step::Ask(Ask::Board(HostCall::LedSet { on })));
        run.answer_board(Ok(0));
        assert_eq!(step(&mut run), Step::Waits);
        assert_eq!(run.due_us(), NOW_US.get() + 15_000);
        pass(15);
    }
    assert_eq!(step(&mut run), Step::Ended(Ok(Cbor::null())));
    for too_much in [(1_001, 1), (61, 1_000)] {
        let error = failed(Cause::Returned, "at most 1000 times and 60 s in all");
        assert_eq!(step(&mut builtin("blink", Cbor::encode(&too_much))), error);
    }
    assert_eq!(step(&mut builtin("blink", Cbor::encode(&(0, 30)))), Step::Ended(Ok(Cbor::null())));
}

#[test]
fn a_blink_is_aborted_between_two_switches() {
    let mut run = builtin("blink", Cbor::encode(&(30, 2_000)));
    assert!(matches!(step(&mut run), Step::Ask(Ask::Board(_))));
    run.answer_board(Ok(0));
    assert_eq!(step(&mut run), Step::Waits);
    run.abort();
    assert_eq!((run.due_us(), step(&mut run)), (0, failed(Cause::Revoked, "stopped")));
}
