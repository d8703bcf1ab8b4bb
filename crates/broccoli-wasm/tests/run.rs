//! A run is suspended and resumed, and gets the answers to its imports.

mod common;

use broccoli_wasm::{Engine, Failure, Host, HostCall, Limits, LoadError, Module, Run, Step, SubmitAnswer};
use common::{Quiet, load, module, task};

#[test]
fn modules_and_runs_move_between_threads() {
    fn send<T: Send>() {}
    fn share<T: Sync>() {}
    send::<Module>();
    share::<Module>();
    send::<Run<Quiet>>();
    send::<Engine>();
}

#[test]
fn a_long_task_yields_and_ends() {
    let count = "(local $i i32)
        (loop (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                                 (i32.const 10000))))
        (i64.const 0x00000003_80000002)";
    let module = load(&task(count)).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    let mut yields = 0;
    let result = loop {
        match run.step(1000) {
            Step::Yielded => yields += 1,
            Step::Done(result) => break result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(result, Err(Failure::TaskError("A".into())));
    assert!(yields > 10, "{yields}");
    assert!((10_000..200_000).contains(&run.fuel_used()), "{}", run.fuel_used());
    assert_eq!(run.step(1000), Step::Done(Err(Failure::Ended)));
}

/// An interrupted instruction takes effect once, and only when it has its fuel.
#[test]
fn a_task_in_the_smallest_steps_comes_to_the_same() {
    let parts = "(table $t 4 100 funcref) (elem $e func $five $six) (elem declare func $five)
        (data $d \"ABCDEFGH\")
        (type $number (func (result i32)))
        (func $five (result i32) (i32.const 5))
        (func $six (result i32) (i32.add (call $five) (i32.const 1)))";
    let body = "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2))
        (table.copy $t $t (i32.const 2) (i32.const 0) (i32.const 2))
        (drop (table.grow $t (ref.func $five) (i32.const 90)))
        (table.fill $t (i32.const 4) (ref.func $five) (i32.const 80))
        (drop (memory.grow (i32.const 2)))
        (memory.init $d (i32.const 200) (i32.const 0) (i32.const 8))
        (memory.copy (i32.const 1000) (i32.const 0) (i32.const 60000))
        (memory.fill (i32.const 2) (i32.const 1) (i32.const 100000))
        (i32.store8 (i32.const 1) (i32.const 0x1a))
        (i32.store8 (i32.const 2) (call_indirect (type $number) (i32.const 3)))
        (i32.store8 (i32.const 3) (call_indirect (type $number) (i32.const 80)))
        (i32.store8 (i32.const 4) (memory.size))
        (i32.store8 (i32.const 5) (i32.sub (table.size $t) (i32.const 90)))
        (i64.const 0x00000001_00000005)";
    let module = load(&common::module(parts, body)).unwrap();
    let in_steps_of = |fuel| {
        let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
        let mut steps = 0;
        loop {
            steps += 1;
            match run.step(fuel) {
                Step::Yielded => {}
                step => return (step, run.fuel_used(), steps),
            }
        }
    };
    let (step, fuel, _) = in_steps_of(1_000_000);
    assert_eq!(step, Step::Done(Ok(vec![0x1a, 6, 5, 3, 4])));
    let (small, same_fuel, steps) = in_steps_of(1);
    assert_eq!((small, same_fuel), (step, fuel));
    assert!(steps > 8, "{steps}");
}

#[test]
fn other_functions_than_known_ones_are_refused() {
    let engine = Engine::new(Limits::host());
    let tasks = engine.load(include_bytes!("../../../functions/tasks.wasm")).unwrap();
    let wasm = wat::parse_str(task("(i64.const 0)")).unwrap();
    assert_eq!(engine.load_known(&wasm, tasks.functions()).unwrap_err(), LoadError::OtherFunctions);
    let known = engine.load(&wasm).unwrap();
    assert_eq!(engine.load_known(&wasm, known.functions()).unwrap().functions(), known.functions());
}

#[test]
fn an_instruction_larger_than_a_slice_gets_its_fuel() {
    let fill = "(memory.fill (i32.const 100) (i32.const 0) (i32.const 65000))
                (i64.const 0x00000003_80000002)";
    let module = load(&task(fill)).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    let steps = (0..100).find_map(|_| match run.step(10) {
        Step::Done(result) => Some(result),
        _ => None,
    });
    assert_eq!(steps, Some(Err(Failure::TaskError("A".into()))));
}

#[test]
fn sleep_suspends_without_fuel() {
    let sleepy = module(
        common::IMPORT_SLEEP,
        "(call $sleep (i32.const 250)) (call $sleep (i32.const -1)) (i64.const 0x00000003_80000002)",
    );
    let module = load(&sleepy).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    assert_eq!(run.step(10_000), Step::Sleep { ms: 250 });
    let before = run.fuel_used();
    assert!(before < 1000);
    assert_eq!(run.step(10_000), Step::Sleep { ms: u32::MAX });
    assert_eq!(run.step(10_000), Step::Done(Err(Failure::TaskError("A".into()))));
}

#[test]
fn progress_reaches_the_host_and_costs_fuel() {
    let body = "(call $progress (i32.const 1) (i32.const 2)) (call $progress (i32.const -1) (i32.const 0))
                (i64.const 0x00000003_80000002)";
    let module = load(&module(common::IMPORT_PROGRESS, body)).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    assert_eq!(run.step(10_000), Step::Done(Err(Failure::TaskError("A".into()))));
    assert!(run.fuel_used() > 200, "{}", run.fuel_used());
    assert_eq!(run.into_host().progress, [(1, 2), (u32::MAX, 0)]);
}

/// Submits two bytes of its memory, and fails with a text of one letter if the canvas is accepted.
fn submitting(len: &str) -> Module {
    let body = format!(
        "(if (result i64) (i64.eqz (call $submit (i32.const 3) (i32.const {len})))
             (then (i64.const 0x00000003_80000002)) (else (unreachable)))"
    );
    load(&module(common::IMPORT_SUBMIT, &body)).expect("loads")
}

#[test]
fn submit_suspends_until_it_is_answered() {
    let module = submitting("2");
    let submit = || Step::Submit { canvas: vec![0x61, b'A'] };
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    assert_eq!(run.step(10_000), submit());
    run.answer(SubmitAnswer::Accepted, "");
    assert_eq!(run.step(10_000), Step::Done(Err(Failure::TaskError("A".into()))));
    for answer in [Some(SubmitAnswer::QueueFull), Some(SubmitAnswer::BadCanvas), None] {
        let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
        assert_eq!(run.step(10_000), submit());
        answer.into_iter().for_each(|answer| run.answer(answer, ""));
        assert!(matches!(run.step(10_000), Step::Done(Err(Failure::Trap(_)))), "{answer:?}");
    }
}

#[test]
fn refusals_are_logged_within_the_limit_of_the_run() {
    let body = "(loop (drop (call $submit (i32.const 3) (i32.const 2))) (br 0)) (unreachable)";
    let module = load(&module(common::IMPORT_SUBMIT, body)).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    let why = "x".repeat(1_000);
    for _ in 0..100 {
        assert!(matches!(run.step(10_000), Step::Submit { .. }));
        run.answer(SubmitAnswer::BadCanvas, &why);
    }
    let lines = run.into_host().lines;
    let max = Limits::host().log_bytes_max;
    assert_eq!(lines.len(), max / 1_008 + 1);
    assert_eq!(lines[0], format!("submit: {why}"));
    assert_eq!(lines.last().unwrap(), "log limit reached, further lines are dropped");
}

#[test]
fn a_canvas_too_large_or_out_of_bounds_is_no_canvas() {
    let max = Limits::host().args_bytes_max;
    let mut run = submitting(&(max + 1).to_string()).start("t", &[0x80], Quiet::default()).unwrap();
    assert!(matches!(run.step(10_000), Step::Done(Err(Failure::Trap(_)))));
    assert_eq!(run.into_host().lines, [format!("submit: the canvas has {} bytes, the limit is {max}", max + 1)]);
    let mut run = submitting("65536").start("t", &[0x80], Quiet::default()).unwrap();
    let trap = Step::Done(Err(Failure::Trap("submit: bytes out of bounds".into())));
    assert_eq!(run.step(10_000), trap);
}

/// Calls the board with these arguments. Returns the answer if it is below 24, or fails with the text.
fn calling(args: &str) -> Module {
    let body = format!(
        "(local $answer i64)
         (local.set $answer (call $board {args}))
         (if (result i64) (i64.eqz (i64.and (local.get $answer) (i64.const 0x1_00000000)))
             (then (i64.store8 (i32.const 100) (local.get $answer)) (i64.const 0x00000064_00000001))
             (else (i64.store8 (i32.const 100) (i64.add (i64.const 0x60) (local.get $answer)))
                   (i64.add (i64.const 0x00000064_80000001) (i64.and (local.get $answer) (i64.const 0xffff)))))"
    );
    load(&module(common::IMPORT_BOARD, &body)).expect("loads")
}

const WRITE_17: &str = "(i32.const 3) (i32.const 17) (i32.const 1) (i32.const 101) (i32.const 16)";

#[test]
fn a_call_of_the_board_suspends_until_it_is_answered() {
    let module = calling(WRITE_17);
    let called = || Step::Call(HostCall::GpioWrite { pin: 17, high: true });
    let failed = |text: &str| Err(Failure::TaskError(text.into()));
    let answers = [
        (Some(Ok(21)), Ok(vec![21])),
        (Some(Err("no pin 17")), failed("no pin 17")),
        (Some(Err("twelve bytes, ä")), failed("twelve bytes, ä")),
        (None, failed("")),
    ];
    for (answer, ends) in answers {
        let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
        assert_eq!(run.step(10_000), called());
        answer.into_iter().for_each(|answer| run.answer_call(answer));
        assert_eq!(run.step(10_000), Step::Done(ends), "{answer:?}");
        assert!(run.fuel_used() > 100, "calls cost fuel");
    }
}

#[test]
fn a_text_is_cut_to_the_room_of_the_guest_in_whole_characters() {
    let mut run = calling(WRITE_17).start("t", &[0x80], Quiet::default()).unwrap();
    assert!(matches!(run.step(10_000), Step::Call(_)));
    run.answer_call(Err("fifteen bytes: ä and more"));
    assert_eq!(run.step(10_000), Step::Done(Err(Failure::TaskError("fifteen bytes: ".into()))));
}

#[test]
fn what_is_no_call_is_refused_without_the_node() {
    let ended = |args: &str| calling(args).start("t", &[0x80], Quiet::default()).unwrap().step(10_000);
    let refused = |text: &str| Step::Done(Err(Failure::TaskError(text.into())));
    let room = "(i32.const 101) (i32.const 23)";
    let text = "this node does not know"; // the board call 9
    assert_eq!(ended(&format!("(i32.const 9) (i32.const 0) (i32.const 0) {room}")), refused(text));
    let text = "a level must be 0 to 1,";
    assert_eq!(ended(&format!("(i32.const 3) (i32.const 4) (i32.const -1) {room}")), refused(text));
    let outside = "(i32.const 5) (i32.const 0) (i32.const 0) (i32.const 65530) (i32.const 7)";
    assert_eq!(ended(outside), Step::Done(Err(Failure::Trap("board: bytes out of bounds".into()))));
}

/// A module whose task returns these bytes, as an error or not.
fn returning(body: &[u8], err: bool) -> Module {
    let data: String = body.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let err = u32::from(err) << 31 | body.len() as u32;
    let extra = format!("(data (i32.const 16) \"{data}\")");
    load(&module(&extra, &format!("(i64.const 0x00000010_{err:08x})"))).expect("loads")
}

#[test]
fn an_error_may_ask_to_be_tried_again() {
    let ended = |body: &[u8]| common::run(&returning(body, true), "t", &[0x80], 10_000).unwrap();
    let retry = |after_ms| Err(Failure::Retry { text: "no".into(), after_ms });
    assert_eq!(ended(b"\x82\x62no\x00"), retry(0));
    assert_eq!(ended(b"\x82\x62no\x19\x09\xc4"), retry(2_500));
    assert_eq!(ended(b"\x82\x62no\x1b\x00\x00\x08\x00\x00\x00\x00\x00"), retry(1 << 43));
    let bad = Err(Failure::BadResult("the error is not [text, after_ms]".into()));
    assert_eq!(ended(b"\x82\x62no\x1b\x00\x00\x08\x00\x00\x00\x00\x01"), bad, "too long");
    assert_eq!(ended(b"\x82\x62no\x20"), bad, "negative");
    assert_eq!(ended(b"\x82\x01\x01"), bad, "no text");
    let no_text = Err(Failure::BadResult("the error is not a text".into()));
    assert_eq!(ended(b"\x81\x62no"), no_text);
    assert_eq!(ended(b"\x83\x62no\x01\x01"), no_text);
    assert!(matches!(ended(b"\x82\x62no"), Err(Failure::BadResult(_))), "cut off");
}

#[test]
fn a_tagged_canvas_passes_as_every_result() {
    // The task is described as giving an i64.
    let ended = |body: &[u8]| common::run(&returning(body, false), "t", &[0x80], 10_000).unwrap();
    let canvas = b"\xda\x42\x52\x4f\x43\x84\x01\x02\x03\x04";
    assert_eq!(ended(canvas), Ok(canvas.to_vec()));
    let mismatch = |got: &str| Err(Failure::BadResult(format!("expected i64, got {got}")));
    assert_eq!(ended(b"\xda\x42\x52\x4f\x44\x01"), mismatch("tag 1112690500"));
    assert_eq!(ended(b"\x81\xda\x42\x52\x4f\x43\x01"), mismatch("list of 1"));
    assert!(matches!(ended(&canvas[..9]), Err(Failure::BadResult(_))), "cut off");
    assert!(matches!(ended(b"\xda\x42\x52\x4f\x43\x01\x01"), Err(Failure::BadResult(_))), "two items");
}

#[test]
fn panics_carry_text_and_line() {
    let panic = module(common::IMPORT_PANIC, "(call $panic (i32.const 2) (i32.const 3) (i32.const 7)) (i64.const 0)");
    let module = load(&panic).unwrap();
    let ended = common::run(&module, "t", &[0x80], 10_000).unwrap().unwrap_err();
    assert_eq!(ended, Failure::Panic { text: "\u{fffd}aA".into(), line: 7 });
    assert_eq!(ended.to_string(), "panic: \u{fffd}aA (line 7)");
}

#[test]
fn initialize_runs_first_and_the_host_comes_back() {
    let init = module(
        &format!(
            "{}
             (global $g (mut i64) (i64.const 0))
             (func (export \"_initialize\")
                (call $log (i32.const 3) (i32.const 2))
                (global.set $g (i64.const 0x00000003_80000002)))",
            common::IMPORT_LOG
        ),
        "(global.get $g)",
    );
    let module = load(&init).unwrap();
    let mut run = module.start("t", &[0x80], Quiet::default()).unwrap();
    assert_eq!(run.step(10_000), Step::Done(Err(Failure::TaskError("A".into()))));
    assert_eq!(run.into_host().lines, ["aA"]);
}

#[test]
fn each_run_has_a_fresh_instance() {
    let counter = module(
        "(global $g (mut i64) (i64.const 0x00000003_80000001))",
        "(global.set $g (i64.add (global.get $g) (i64.const 1))) (global.get $g)",
    );
    let module = load(&counter).unwrap();
    for _ in 0..3 {
        let ended = common::run(&module, "t", &[0x80], 10_000);
        assert_eq!(ended, Some(Err(Failure::TaskError("A".into()))));
    }
}

#[test]
fn bad_calls_are_refused_before_they_run() {
    let module = load(&task("(i64.const 0)")).unwrap();
    let refused = |function: &str, args: &[u8]| module.start(function, args, Quiet::default()).unwrap_err().to_string();
    assert_eq!(refused("u", &[0x80]), "the module has no function u");
    assert_eq!(refused("t", &[0x81, 1]), "t() -> i64 takes 0 arguments, got 1");
    assert_eq!(refused("t", &[0x01]), "bad arguments: expected a list of arguments, got int");
    assert!(refused("t", &[0x9f, 0xff]).contains("indefinite length"));
    let max = Limits::host().args_bytes_max;
    let text = format!("the arguments have {} bytes, this node takes {max}", max + 1);
    assert_eq!(refused("t", &vec![0; max + 1]), text);
}

#[test]
fn functions_are_read_without_loading() {
    // It cannot be loaded, because its import is forbidden.
    let wat = module("(import \"env\" \"x\" (func))", "(i64.const 0)");
    let functions = broccoli_wasm::functions(&wat::parse_str(wat).unwrap()).unwrap();
    assert_eq!(functions[0].to_string(), "t() -> i64");
    assert!(broccoli_wasm::functions(b"\x7fELF").is_err());
}

#[test]
fn two_hosts_share_a_module() {
    struct Other;
    impl Host for Other {
        fn log(&mut self, _: &str) {}
        fn now_ms(&mut self) -> i64 {
            0
        }
        fn random(&mut self) -> u64 {
            0
        }
        fn progress(&mut self, _: u32, _: u32) {}
    }
    let module = load(&task("(i64.const 0x00000003_80000002)")).unwrap();
    let error = Step::Done(Err(Failure::TaskError("A".into())));
    assert_eq!(module.start("t", &[0x80], Other).unwrap().step(1000), error);
    assert_eq!(module.start("t", &[0x80], Quiet::default()).unwrap().step(1000), error);
}
