//! The committed example modules, in Rust and C, do what the documentation says.

mod common;

use broccoli_wasm::{Engine, Failure, HostCall, Limits, Module, Step, SubmitAnswer};
use common::Quiet;

const FUEL_MAX: u64 = 100_000_000;

fn tasks() -> Module {
    let wasm = include_bytes!("../../../functions/tasks.wasm");
    Engine::new(Limits::host()).load(wasm).expect("loads")
}

fn hello() -> Module {
    let wasm = include_bytes!("../../../functions/c/hello.wasm");
    Engine::new(Limits::host()).load(wasm).expect("loads")
}

/// Runs a function to its end. Arguments and result are CBOR.
fn call(module: &Module, function: &str, args: &[u8]) -> Result<Vec<u8>, Failure> {
    common::run(module, function, args, FUEL_MAX).expect("ends within its fuel")
}

fn int(n: i64) -> Vec<u8> {
    let (major, n) = if n < 0 { (0x20, !n as u64) } else { (0, n as u64) };
    match n {
        0..24 => vec![major | n as u8],
        24..0x100 => vec![major | 24, n as u8],
        0x100..0x1_0000 => [vec![major | 25], (n as u16).to_be_bytes().into()].concat(),
        0x1_0000..0x1_0000_0000 => [vec![major | 26], (n as u32).to_be_bytes().into()].concat(),
        _ => [vec![major | 27], n.to_be_bytes().into()].concat(),
    }
}

fn float(x: f64) -> Vec<u8> {
    [vec![0xfb], x.to_be_bytes().into()].concat()
}

fn text(s: &str) -> Vec<u8> {
    let len = u8::try_from(s.len()).expect("short");
    [vec![0x78, len], s.into()].concat()
}

/// The shortest head, as the guests write it.
fn short_text(s: &str) -> Vec<u8> {
    assert!(s.len() < 24);
    [vec![0x60 | s.len() as u8], s.into()].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let len = u16::try_from(items.len()).expect("short");
    [vec![0x99], len.to_be_bytes().into(), items.concat()].concat()
}

fn task_error<T>(text: &str) -> Result<T, Failure> {
    Err(Failure::TaskError(text.into()))
}

#[test]
fn the_section_describes_every_function() {
    let module = tasks();
    let mut signatures: Vec<String> = module.functions().iter().map(|f| f.to_string()).collect();
    signatures.sort();
    assert_eq!(
        signatures,
        [
            "add(x: num, y: num) -> !num",
            "concat(a: str, b: str) -> str",
            "echo(value: any) -> any",
            "fail(msg: str) -> !null",
            "fib(n: u32) -> u64",
            "identity(value: any) -> any",
            "mapper(word: str) -> ?(str,u8)",
            "mul(x: num, y: num) -> !num",
            "primes(n: u32) -> u32",
            "sleep_ms(ms: u32, value: any) -> any",
            "spin(n: u64) -> u64",
            "sub(x: num, y: num) -> !num",
            "tsum(numbers: [num]) -> !num",
            "xsum(numbers: [num]) -> !num",
        ]
    );
    let add = module.functions().iter().find(|f| f.name == "add").unwrap();
    assert_eq!(add.doc, "Adds two numbers.");
}

#[test]
fn arithmetic_takes_integers_and_floats() {
    let module = tasks();
    let apply = |f: &str, x: Vec<u8>, y: Vec<u8>| call(&module, f, &list(&[x, y]));
    for n in [0, 23, 24, -1, -25, 255, 256, 65_536, 1 << 40, i64::MAX, i64::MIN] {
        assert_eq!(apply("add", int(n), int(0)), Ok(int(n)));
        assert_eq!(apply("mul", int(n), int(1)), Ok(int(n)));
    }
    assert_eq!(apply("add", int(4), int(4)), Ok(int(8)));
    assert_eq!(apply("sub", int(4), int(10)), Ok(int(-6)));
    assert_eq!(apply("mul", int(-8), int(8)), Ok(int(-64)));
    assert_eq!(apply("add", int(1), float(0.5)), Ok(float(1.5)));
    assert_eq!(apply("sub", float(1.0), float(0.5)), Ok(float(0.5)));
    // A half (1.5) and a single (-0.25) count as floats, too.
    let half = vec![0xf9, 0x3e, 0x00];
    let single = vec![0xfa, 0xbe, 0x80, 0, 0];
    assert_eq!(apply("mul", half, single), Ok(float(-0.375)));
}

#[test]
fn integer_overflow_is_an_error_text() {
    let module = tasks();
    let apply = |f: &str, x: i64, y: i64| call(&module, f, &list(&[int(x), int(y)]));
    assert_eq!(apply("add", i64::MAX, 1), task_error("integer overflow"));
    assert_eq!(apply("sub", i64::MIN, 1), task_error("integer overflow"));
    assert_eq!(apply("mul", i64::MAX, 2), task_error("integer overflow"));
    let sum = call(&module, "tsum", &list(&[list(&[int(i64::MAX), int(1)])]));
    assert_eq!(sum, task_error("integer overflow"));
    // A call with integers beyond 64 bits does not start.
    let big = vec![0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0];
    let text = call(&module, "add", &list(&[big, int(1)])).unwrap_err().to_string();
    assert_eq!(text, "argument x: expected num, got 9223372036854775808");
}

#[test]
fn sums_of_many_numbers() {
    let module = tasks();
    let numbers: Vec<_> = (0..10_000).map(int).collect();
    for name in ["tsum", "xsum"] {
        assert_eq!(call(&module, name, &list(&[list(&numbers)])), Ok(int(49_995_000)));
        assert_eq!(call(&module, name, &list(&[list(&[])])), Ok(int(0)));
        let mixed = list(&[list(&[int(1), float(0.5)])]);
        assert_eq!(call(&module, name, &mixed), Ok(float(1.5)));
    }
}

#[test]
fn identity_and_echo_give_back_the_very_bytes() {
    let module = tasks();
    let big = [vec![0x59, 0x27, 0x10], vec![7; 10_000]].concat();
    let nested = [vec![0x81; 60], vec![0]].concat();
    let map = vec![0xa2, 0x61, b'a', 0xf6, 1, 0xf9, 0x7e, 0];
    let tagged = vec![0xd9, 1, 0, 0x82, 0xf4, 0xf5];
    let largest = vec![0x3b, 255, 255, 255, 255, 255, 255, 255, 255];
    for value in [big, nested, map, tagged, largest, text("ä"), vec![0xf6]] {
        for name in ["identity", "echo"] {
            assert_eq!(call(&module, name, &list(std::slice::from_ref(&value))), Ok(value.clone()));
        }
    }
}

#[test]
fn texts_join_and_map() {
    let module = tasks();
    let concat = call(&module, "concat", &list(&[text("grün"), text("kohl")]));
    assert_eq!(concat, Ok(short_text("grünkohl")));
    let mapper = |word: &str| call(&module, "mapper", &list(&[text(word)]));
    assert_eq!(mapper("word"), Ok([vec![0x82], short_text("word"), int(1)].concat()));
    for short in ["", "the", "äöü"] {
        assert_eq!(mapper(short), Ok(vec![0xf6]), "{short}");
    }
    assert_eq!(mapper("äöüß"), Ok([vec![0x82], short_text("äöüß"), int(1)].concat()));
}

#[test]
fn fail_fails_and_sleep_sleeps() {
    let module = tasks();
    assert_eq!(call(&module, "fail", &list(&[text("on purpose")])), task_error("on purpose"));
    let args = list(&[int(1500), text("awake")]);
    let mut run = module.start("sleep_ms", &args, Quiet::default()).unwrap();
    assert_eq!(run.step(100_000), Step::Sleep { ms: 1500 });
    assert_eq!(run.step(100_000), Step::Done(Ok(text("awake"))));
}

#[test]
fn work_is_done() {
    let module = tasks();
    assert_eq!(call(&module, "fib", &list(&[int(20)])), Ok(int(6765)));
    assert_eq!(call(&module, "primes", &list(&[int(1000)])), Ok(int(168)));
    let fuel = |n: i64| {
        let mut run = module.start("spin", &list(&[int(n)]), Quiet::default()).unwrap();
        assert_eq!(run.step(FUEL_MAX), Step::Done(Ok(int(n))));
        run.fuel_used()
    };
    let (once, ten) = (fuel(10_000), fuel(100_000));
    assert!(ten > 9 * once && once > 50_000, "{once} {ten}");
    // Too deep a recursion ends the task with a text, and not the node.
    assert_eq!(call(&module, "fib", &list(&[int(100_000)])), Err(Failure::StackOverflow));
    assert_eq!(common::run(&module, "spin", &list(&[int(1 << 40)]), 1_000_000), None);
}

#[test]
fn the_module_runs_within_the_limits_of_a_chip() {
    let wasm = include_bytes!("../../../functions/tasks.wasm");
    let module = Engine::new(Limits::chip()).load(wasm).unwrap();
    assert_eq!(call(&module, "add", &list(&[int(4), int(4)])), Ok(int(8)));
    let args = list(&[[vec![0x59, 0x10, 0], vec![7; 4096]].concat()]);
    assert_eq!(call(&module, "echo", &args), Ok(args[3..].to_vec()));
}

#[test]
fn arguments_larger_than_the_memory_are_out_of_memory() {
    let wasm = include_bytes!("../../../functions/tasks.wasm");
    let limits = Limits { memory_bytes_max: 16 << 10, ..Limits::host() };
    let module = Engine::new(limits).load(wasm).unwrap();
    let args = list(&[[vec![0x59, 0x40, 0], vec![7; 16 << 10]].concat()]);
    let ended = call(&module, "echo", &args);
    assert!(matches!(ended, Err(Failure::OutOfMemory { limit: Some(16_384), .. })), "{ended:?}");
}

#[test]
fn c_modules_describe_themselves() {
    let module = hello();
    let signatures: Vec<String> = module.functions().iter().map(|f| f.to_string()).collect();
    assert_eq!(
        signatures,
        [
            "hello(name: str) -> !str",
            "divide(x: i64, y: i64) -> !(i64,i64)",
            "mean(numbers: [f64]) -> f64",
            "knock(open: bool) -> !null",
            "relay(name: str) -> !str",
            "wave(name: str) -> !null",
            "pressed(pin: u16) -> !bool",
        ]
    );
    assert_eq!(module.functions()[1].doc, "Quotient and remainder.");
}

#[test]
fn c_tasks_run_fail_log_and_panic() {
    let module = hello();
    let mut run = module.start("hello", &list(&[text("C")]), Quiet::default()).unwrap();
    assert_eq!(run.step(FUEL_MAX), Step::Done(Ok(short_text("hello C"))));
    assert_eq!(run.into_host().lines, ["greeting"]);
    assert_eq!(call(&module, "hello", &list(&[text("")])), task_error("who?"));
    let long = "x".repeat(250);
    let greeted = call(&module, "hello", &list(&[text(&long)])).unwrap();
    assert_eq!(greeted[..3], [0x79, 1, 0]);
    let divide = |x: i64, y: i64| call(&module, "divide", &list(&[int(x), int(y)]));
    assert_eq!(divide(-17, 5), Ok([vec![0x82], int(-3), int(-2)].concat()));
    assert_eq!(divide(i64::MIN, 1), Ok([vec![0x82], int(i64::MIN), int(0)].concat()));
    assert_eq!(divide(1, 0), task_error("division by zero"));
    assert_eq!(divide(i64::MIN, -1), task_error("integer overflow"));
    let numbers = list(&[int(-1), float(2.5), vec![0xf9, 0x3e, 0], vec![0xf9, 0, 1]]);
    let expected = (-1.0 + 2.5 + 1.5 + 2f64.powi(-24)) / 4.0;
    assert_eq!(call(&module, "mean", &list(&[numbers])), Ok(float(expected)));
    match call(&module, "mean", &list(&[list(&[])])) {
        Err(Failure::Panic { text, line }) => {
            assert_eq!(text, "the mean of nothing");
            assert!(line > 30);
        }
        other => panic!("{other:?}"),
    }
}

/// The canvas `hello.hello(name)` as it is on the wire, for a short name.
fn call_of_hello(name: &str) -> Vec<u8> {
    let args = list_of(&[short_text(name)]);
    let task = [vec![0x84], short_text("hello.hello"), vec![0x40 | args.len() as u8], args, vec![0x80, 0xf4]].concat();
    [vec![0x84, 0x82, 0x00, 0x81], task, vec![0xa1, 0x04, 0x80, 0x80, 0x80]].concat()
}

/// The shortest head, as the guests write it.
fn list_of(items: &[Vec<u8>]) -> Vec<u8> {
    assert!(items.len() < 24);
    [vec![0x80 | items.len() as u8], items.concat()].concat()
}

#[test]
fn c_tasks_ask_again_submit_and_replace_themselves() {
    let module = hello();
    assert_eq!(call(&module, "knock", &list(&[vec![0xf5]])), Ok(vec![0xf6]));
    let again = Failure::Retry { text: "nobody opens".into(), after_ms: 2_000 };
    assert_eq!(call(&module, "knock", &list(&[vec![0xf4]])), Err(again));
    let replaced = call(&module, "relay", &list(&[text("C")]));
    assert_eq!(replaced, Ok([b"\xda\x42\x52\x4f\x43".to_vec(), call_of_hello("C")].concat()));
    for (answer, end) in [
        (SubmitAnswer::Accepted, Ok(vec![0xf6])),
        (SubmitAnswer::QueueFull, task_error("this node takes no more jobs")),
    ] {
        let mut run = module.start("wave", &list(&[text("C")]), Quiet::default()).unwrap();
        assert_eq!(run.step(FUEL_MAX), Step::Submit { canvas: call_of_hello("C") });
        assert_eq!(run.host().progress, [(1, 2)]);
        run.answer(answer, "");
        assert_eq!(run.step(FUEL_MAX), Step::Done(end));
    }
}

fn flow() -> Module {
    let wasm = include_bytes!("../../../functions/flow.wasm");
    Engine::new(Limits::host()).load(wasm).expect("loads")
}

#[test]
fn tasks_that_steer_their_own_way_describe_themselves() {
    let module = flow();
    let mut signatures: Vec<String> = module.functions().iter().map(|f| f.to_string()).collect();
    signatures.sort();
    assert_eq!(
        signatures,
        [
            "around(parts: ([i64],[i64]), pivot: i64) -> [i64]",
            "later(function: str, value: any, ms: u32) -> !null",
            "not_before(unix_ms: i64, value: any) -> !any",
            "quicksort(numbers: [i64]) -> [i64]",
            "refuse(msg: str, again_ms: ?u32) -> !null",
            "squares(n: u32, home: str, ms: u32) -> !null",
            "steps(count: u32, ms: u32) -> u32",
            "tell(number: i64) -> i64",
        ]
    );
}

#[test]
fn rust_tasks_ask_to_be_tried_again() {
    let module = flow();
    let refused = |again_ms: Vec<u8>| call(&module, "refuse", &list(&[text("no"), again_ms]));
    assert_eq!(refused(vec![0xf6]), task_error("no"));
    assert_eq!(refused(int(1_500)), Err(Failure::Retry { text: "no".into(), after_ms: 1_500 }));
    // The clock of these tests starts at 1.
    let not_before = |unix_ms| call(&module, "not_before", &list(&[int(unix_ms), int(7)]));
    assert_eq!(not_before(1), Ok(int(7)));
    assert_eq!(not_before(i64::MIN), Ok(int(7)));
    assert_eq!(not_before(501), Err(Failure::Retry { text: "not yet".into(), after_ms: 500 }));
}

#[test]
fn a_rust_task_says_how_far_it_is() {
    let module = flow();
    let mut run = module.start("steps", &list(&[int(2), int(30)]), Quiet::default()).unwrap();
    assert_eq!(run.step(FUEL_MAX), Step::Sleep { ms: 30 });
    assert_eq!(run.host().progress, [(0, 2)]);
    assert_eq!(run.step(FUEL_MAX), Step::Sleep { ms: 30 });
    assert_eq!(run.step(FUEL_MAX), Step::Done(Ok(int(2))));
    assert_eq!(run.into_host().progress, [(0, 2), (1, 2), (2, 2)]);
}

#[test]
fn a_rust_task_logs_a_number() {
    for number in [0, -1, i64::MIN, i64::MAX] {
        let mut run = flow().start("tell", &list(&[int(number)]), Quiet::default()).unwrap();
        assert_eq!(run.step(FUEL_MAX), Step::Done(Ok(int(number))));
        assert_eq!(run.into_host().lines, [number.to_string()]);
    }
}

#[test]
fn a_rust_task_submits_and_learns_the_answer() {
    let module = flow();
    let args = list(&[text("hello.hello"), text("C"), int(0)]);
    let ended = |answer: SubmitAnswer| {
        let mut run = module.start("later", &args, Quiet::default()).unwrap();
        match run.step(FUEL_MAX) {
            // The same call, except for its countdown.
            Step::Submit { canvas } => assert!(canvas.ends_with(b"\xa2\x03\x00\x04\x80\x80\x80"), "{canvas:x?}"),
            other => panic!("{other:?}"),
        }
        run.answer(answer, "");
        run.step(FUEL_MAX)
    };
    assert_eq!(ended(SubmitAnswer::Accepted), Step::Done(Ok(vec![0xf6])));
    assert_eq!(ended(SubmitAnswer::QueueFull), Step::Done(task_error("queue full")));
    let refused = "the submitted canvas was refused: see the log of the task";
    assert_eq!(ended(SubmitAnswer::BadCanvas), Step::Done(task_error(refused)));
    assert_eq!(ended(SubmitAnswer::NoJobs), Step::Done(task_error("this node takes no jobs")));
}

/// Runs a function to its end. The board answers these calls, in this order.
fn with_board(
    module: &Module,
    function: &str,
    args: &[u8],
    answers: &[(HostCall, Result<i32, &str>)],
) -> Result<Vec<u8>, Failure> {
    let mut run = module.start(function, args, Quiet::default()).expect("starts");
    for (call, answer) in answers {
        assert_eq!(run.step(FUEL_MAX), Step::Call(*call));
        run.answer_call(*answer);
    }
    match run.step(FUEL_MAX) {
        Step::Done(result) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_c_task_uses_the_board() {
    let (read, shine) = (HostCall::GpioRead { pin: 4 }, HostCall::LedSet { on: true });
    let pressed = |answers: &[_]| with_board(&hello(), "pressed", b"\x81\x04", answers);
    assert_eq!(pressed(&[(read, Ok(1)), (shine, Ok(0))]), Ok(vec![0xf5]));
    assert_eq!(pressed(&[(read, Ok(0)), (HostCall::LedSet { on: false }, Ok(0))]), Ok(vec![0xf4]));
    assert_eq!(pressed(&[(read, Err("no pin 4"))]), task_error("no pin 4"));
    assert_eq!(pressed(&[(read, Ok(1)), (shine, Err("no LED, größtes Pech"))]), task_error("no LED, größtes Pech"));
}

#[test]
fn a_rust_task_uses_the_board() {
    let wasm = include_bytes!("../../../functions/lights.wasm");
    let lights = Engine::new(Limits::host()).load(wasm).expect("loads");
    let copy = |answers: &[_]| with_board(&lights, "copy_pin", b"\x82\x04\x11", answers);
    let (read, write) = (HostCall::GpioRead { pin: 4 }, HostCall::GpioWrite { pin: 17, high: true });
    assert_eq!(copy(&[(read, Ok(1)), (write, Ok(0))]), Ok(vec![0xf5]));
    assert_eq!(copy(&[(read, Ok(1)), (write, Err("pin 17 is taken"))]), task_error("pin 17 is taken"));
    let long = "x".repeat(200);
    assert_eq!(copy(&[(read, Err(&long))]), task_error(&long[..160]));
    let answers = [(HostCall::AdcRead { channel: 3 }, Ok(1_650)), (HostCall::TemperatureRead, Ok(-4_250))];
    assert_eq!(with_board(&lights, "measure", b"\x81\x03", &answers), Ok(b"\x82\x19\x06\x72\x39\x10\x99".to_vec()));
}

#[test]
fn a_rust_task_replaces_itself() {
    let module = flow();
    let sorted = |numbers: &[i64]| {
        let numbers: Vec<_> = numbers.iter().copied().map(int).collect();
        call(&module, "quicksort", &list(&[list_of(&numbers)]))
    };
    assert_eq!(sorted(&[]), Ok(list_of(&[])));
    assert_eq!(sorted(&[3, -1, 2]), Ok(list_of(&[int(-1), int(2), int(3)])));
    // The chord of two parts with the pivot, which is the fifth of nine.
    let replaced = sorted(&[9, 8, 7, 6, 5, 4, 3, 2, 1]).unwrap();
    assert!(replaced.starts_with(b"\xda\x42\x52\x4f\x43\x84\x82\x03\x82\x82\x84\x82\x00\x81\x84\x6eflow.quicksort"));
    assert!(replaced.ends_with(b"\x6bflow.around\x42\x81\x05\x80\xf4\xa1\x04\x80\x80\x80\xa1\x04\x80\x80\x80"));
}
