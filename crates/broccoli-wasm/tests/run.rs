//! A run suspends, goes on, and answers its imports.

mod common;

use broccoli_wasm::{Engine, Failure, Host, Limits, Module, Run, Step};
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
            Step::Sleep { .. } => panic!("does not sleep"),
            Step::Done(result) => break result,
        }
    };
    assert_eq!(result, Err(Failure::TaskError("A".into())));
    assert!(yields > 10, "{yields}");
    assert!((10_000..200_000).contains(&run.fuel_used()), "{}", run.fuel_used());
    assert_eq!(run.step(1000), Step::Done(Err(Failure::Ended)));
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
    let text = format!("the arguments have {} bytes, the limit is {max}", max + 1);
    assert_eq!(refused("t", &vec![0; max + 1]), text);
}

#[test]
fn functions_are_read_without_loading() {
    // It cannot be loaded: its import is forbidden.
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
    }
    let module = load(&task("(i64.const 0x00000003_80000002)")).unwrap();
    let error = Step::Done(Err(Failure::TaskError("A".into())));
    assert_eq!(module.start("t", &[0x80], Other).unwrap().step(1000), error);
    assert_eq!(module.start("t", &[0x80], Quiet::default()).unwrap().step(1000), error);
}
