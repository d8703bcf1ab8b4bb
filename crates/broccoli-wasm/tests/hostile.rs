//! A module that breaks the ABI is refused, or only its run fails. The engine continues to work.

mod common;

use broccoli_wasm::{Engine, Failure, Limits, LoadError, Step};
use common::{Quiet, load, module, run, task};

const FUEL_MAX: u64 = 50_000_000;

/// Loads a module around this task body and runs it with the argument list `[]`.
fn run_body(body: &str) -> Result<Vec<u8>, Failure> {
    let module = load(&task(body)).expect("loads");
    run(&module, "t", &[0x80], FUEL_MAX).expect("ends within its fuel")
}

fn refused(wat: &str) -> LoadError {
    load(wat).expect_err("must be refused")
}

#[test]
fn infinite_loops_end_with_the_fuel() {
    let forever = load(&task("(loop (br 0)) (i64.const 0)")).unwrap();
    assert_eq!(run(&forever, "t", &[0x80], 1_000_000), None);
    let fill = "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br 0))
                (i64.const 0)";
    assert_eq!(run(&load(&task(fill)).unwrap(), "t", &[0x80], 1_000_000), None);
}

#[test]
fn a_loop_in_initialize_and_in_the_allocator_is_stepped_too() {
    let init = module("(func (export \"_initialize\") (loop (br 0)))", "(i64.const 0)");
    assert_eq!(run(&load(&init).unwrap(), "t", &[0x80], 100_000), None);
    let alloc = task("(i64.const 0)").replace("(i32.const 1024)", "(loop (br 0)) (i32.const 1024)");
    assert_eq!(run(&load(&alloc).unwrap(), "t", &[0x80], 100_000), None);
}

#[test]
fn a_flood_of_logs_burns_fuel_and_is_cut() {
    let flood = "(loop (call $log (i32.const 0) (i32.const 1000)) (br 0)) (i64.const 0)";
    let module = load(&module(common::IMPORT_LOG, flood)).unwrap();
    let mut task = module.start("t", &[0x80], Quiet::default()).unwrap();
    assert_eq!(task.step(1_000_000), Step::Yielded);
    let lines = &task.host().lines;
    assert_eq!(lines.last().unwrap(), "log limit reached, further lines are dropped");
    assert!(lines.iter().map(String::len).sum::<usize>() < Limits::host().log_bytes_max + 100);
    assert!(task.fuel_used() >= 1_000_000);
}

#[test]
fn growing_without_end_is_out_of_memory() {
    let bomb = "(loop (drop (memory.grow (i32.const 16))) (br 0)) (i64.const 0)";
    let Err(failure) = run_body(bomb) else { panic!("no limit of memory") };
    let max = Limits::host().memory_bytes_max;
    assert_eq!(failure, Failure::OutOfMemory { wanted: max + (1 << 16), limit: Some(max) });
    assert_eq!(failure.to_string(), "out of memory: it needs 16842752 bytes, this node gives 16777216");
}

#[test]
fn an_allocator_that_traps_is_out_of_memory() {
    let alloc = task("(i64.const 0)").replace("(i32.const 1024)", "(unreachable)");
    let ended = run(&load(&alloc).unwrap(), "t", &[0x80], FUEL_MAX);
    assert_eq!(
        ended,
        Some(Err(Failure::OutOfMemory { wanted: 1 << 16, limit: Some(Limits::host().memory_bytes_max) }))
    );
}

#[test]
fn an_allocator_that_lies_is_caught() {
    let alloc = task("(i64.const 0)").replace("(i32.const 1024)", "(i32.const -1)");
    let ended = run(&load(&alloc).unwrap(), "t", &[0x80], FUEL_MAX);
    let reason = "broccoli_alloc: out of bounds".into();
    assert_eq!(ended, Some(Err(Failure::BadResult(reason))));
}

#[test]
fn endless_recursion_is_a_stack_overflow() {
    let recursion = module("(func $f (call $f))", "(call $f) (i64.const 0)");
    let ended = run(&load(&recursion).unwrap(), "t", &[0x80], FUEL_MAX);
    assert_eq!(ended, Some(Err(Failure::StackOverflow)));
}

#[test]
fn results_out_of_bounds_are_refused() {
    let reason = Failure::BadResult("out of bounds".into());
    // The last byte of memory and one beyond; then an address far outside.
    assert_eq!(run_body("(i64.const 0x0000ffff_00000002)"), Err(reason.clone()));
    assert_eq!(run_body("(i64.const 0xffffffff_00000001)"), Err(reason));
    let too_large = run_body("(i64.const 0x00000000_7fffffff)");
    let max = Limits::host().result_bytes_max;
    assert_eq!(too_large, Err(Failure::ResultTooLarge { bytes: 0x7fff_ffff, max }));
}

#[test]
fn results_that_are_not_cbor_of_the_type_are_refused() {
    // The first bytes of memory: ff, 61 ff, 61 41, f5.
    let cases = [
        ("0x00000000_00000000", "expected one CBOR item, got the CBOR ends inside an item"),
        ("0x00000000_00000001", "expected one CBOR item, got indefinite length at byte 0; use definite ones"),
        ("0x00000001_00000002", "expected one CBOR item, got the text at byte 0 is not UTF-8"),
        ("0x00000003_00000002", "expected i64, got str"),
        ("0x00000003_00000003", "expected one CBOR item, got more than one CBOR item (second at byte 2)"),
        // The same as errors, which must be texts.
        ("0x00000000_80000001", "indefinite length at byte 0; use definite ones"),
        ("0x00000005_80000001", "the error is not a text"),
    ];
    for (packed, reason) in cases {
        let ended = run_body(&format!("(i64.const {packed})"));
        assert_eq!(ended, Err(Failure::BadResult(reason.into())), "{packed}");
    }
    let error = run_body("(i64.const 0x00000003_80000002)");
    assert_eq!(error, Err(Failure::TaskError("A".into())));
}

#[test]
fn traps_name_their_cause() {
    let cases = [
        ("(unreachable)", "trap: wasm `unreachable` instruction executed"),
        ("(i64.load (i32.const -1))", "trap: out of bounds memory access"),
        ("(i64.div_s (i64.const 1) (i64.const 0))", "trap: integer divide by zero"),
    ];
    for (body, text) in cases {
        assert_eq!(run_body(body).unwrap_err().to_string(), text);
    }
}

#[test]
fn texts_out_of_bounds_are_traps() {
    let panic = "(call $panic (i32.const 65535) (i32.const 2) (i32.const 0)) (i64.const 0)";
    let module = load(&module(common::IMPORT_PANIC, panic)).unwrap();
    let ended = run(&module, "t", &[0x80], FUEL_MAX).unwrap();
    assert_eq!(ended.unwrap_err().to_string(), "trap: panic: bytes out of bounds");
}

#[test]
fn unknown_imports_are_refused_by_name() {
    let import = |module: &str, name: &str| {
        refused(&common::module(&format!("(import \"{module}\" \"{name}\" (func))"), "(i64.const 0)"))
    };
    assert_eq!(import("env", "system"), LoadError::ForbiddenImport("env.system".into()));
    assert_eq!(import("broccoli", "gpio_write"), LoadError::ForbiddenImport("broccoli.gpio_write".into()));
    assert_eq!(import("broccoli", "i2c_read").to_string(), "forbidden import broccoli.i2c_read");
    assert_eq!(import("broccoli", "now_ms"), LoadError::ImportType("broccoli.now_ms".into()));
    let memory = "(import \"broccoli\" \"panic\" (memory $m 1))";
    let wat = module(memory, "(i64.const 0)").replace("(memory (export \"memory\") 1)", "");
    assert_eq!(refused(&wat), LoadError::ImportType("broccoli.panic".into()));
}

#[test]
fn start_functions_are_refused() {
    let wat = module("(func $s (loop (br 0))) (start $s)", "(i64.const 0)");
    assert_eq!(refused(&wat), LoadError::StartFunction);
}

#[test]
fn memory_and_tables_over_the_limit_are_refused() {
    let wat = task("(i64.const 0)").replace("\"memory\") 1)", "\"memory\") 65536)");
    let max = Limits::host().memory_bytes_max;
    assert_eq!(refused(&wat), LoadError::MemoryTooLarge { max });
    let max = Limits::host().table_elements_max;
    let table = |table: &str| refused(&module(table, "(i64.const 0)"));
    assert_eq!(table("(table 10000000 funcref)"), LoadError::TableTooLarge { max });
    assert_eq!(table(&"(table 1 funcref)".repeat(20)), LoadError::TableTooLarge { max });
}

#[test]
fn segments_out_of_bounds_are_refused() {
    let data = refused(&module("(data (i32.const 65536) \"x\")", "(i64.const 0)"));
    assert!(matches!(data, LoadError::Invalid(_)), "{data}");
    let elem = "(table 1 funcref) (func $f) (elem (i32.const 1) $f)";
    assert!(matches!(refused(&module(elem, "(i64.const 0)")), LoadError::Invalid(_)));
}

#[test]
fn too_large_modules_are_refused_with_both_sizes() {
    let wasm = wat::parse_str(task("(i64.const 0)")).unwrap();
    let limits = Limits { module_bytes_max: 20, ..Limits::host() };
    let refused = Engine::new(limits).load(&wasm).unwrap_err();
    let text = format!("the module has {} bytes, the limit is 20", wasm.len());
    assert_eq!(refused.to_string(), text);
}

#[test]
fn missing_and_wrong_exports_are_refused() {
    let base = task("(i64.const 0)");
    let without = |part: &str| refused(&base.replace(part, ""));
    assert_eq!(without("(export \"memory\")"), LoadError::MissingExport("memory".into()));
    let alloc = without("(export \"broccoli_alloc\")");
    assert_eq!(alloc, LoadError::MissingExport("broccoli_alloc".into()));
    assert_eq!(without("(export \"task_t\")"), LoadError::MissingExport("task_t".into()));
    let undescribed = refused(&base.replace("task_t", "task_u"));
    assert_eq!(undescribed, LoadError::MissingExport("task_t".into()));
    let extra = refused(&module("(func (export \"task_u\"))", "(i64.const 0)"));
    assert_eq!(extra, LoadError::Undescribed("task_u".into()));
    let ty = refused(&base.replace("(param i32) (result i32)", "(param i64) (result i32)"));
    assert_eq!(ty, LoadError::ExportType("broccoli_alloc".into()));
    let init = module("(func (export \"_initialize\") (param i32))", "(i64.const 0)");
    assert_eq!(refused(&init), LoadError::ExportType("_initialize".into()));
}

#[test]
fn bad_sections_are_refused() {
    let base = task("(i64.const 0)");
    let missing = refused(&base.replace("broccoli.abi", "other"));
    assert_eq!(missing, LoadError::MissingSection("broccoli.abi"));
    let missing = refused(&base.replace("broccoli.tasks", "other"));
    assert_eq!(missing, LoadError::MissingSection("broccoli.tasks"));
    assert_eq!(refused(&base.replace("\"\\01\"", "\"\\02\"")), LoadError::AbiVersion(2));
    assert!(matches!(refused(&base.replace("\\84", "\\85")), LoadError::Describe(_)));
    assert!(matches!(refused(&base.replace("i64\\60", "i65\\60")), LoadError::Describe(_)));
}

#[test]
fn every_prefix_and_every_flipped_byte_is_refused_or_runs() {
    let wasm = wat::parse_str(task("(i64.const 0x00000003_80000002)")).unwrap();
    let engine = Engine::new(Limits::host());
    for len in 0..wasm.len() {
        // Custom sections are last, so every cut loses something.
        assert!(engine.load(&wasm[..len]).is_err(), "cut at {len}");
    }
    for at in 0..wasm.len() {
        for bit in 0..8 {
            let mut broken = wasm.clone();
            broken[at] ^= 1 << bit;
            if let Ok(module) = engine.load(&broken) {
                run(&module, "t", &[0x80], 10_000);
            }
        }
    }
}

#[test]
fn chips_refuse_what_hosts_take() {
    let big = task("(i64.const 0)").replace("\"memory\") 1)", "\"memory\") 2)");
    let wasm = wat::parse_str(big).unwrap();
    assert!(Engine::new(Limits::host()).load(&wasm).is_ok());
    let refused = Engine::new(Limits::chip()).load(&wasm).unwrap_err();
    assert_eq!(refused.to_string(), "the module's memory is larger than the limit of 65536 bytes");
}

#[test]
fn the_operand_stack_has_its_limit_in_bytes() {
    let frame_of = |variables: usize| {
        let big = format!("(func $big (local {}) (call $none) (local.set 0 (i64.const 1)))", "i64 ".repeat(variables));
        let body = "(call $big) (i64.const 0x00000003_80000002)";
        let wasm = wat::parse_str(module(&format!("{big} (func $none)"), body)).unwrap();
        let limits = Limits { stack_bytes_max: 8 << 10, ..Limits::host() };
        run(&Engine::new(limits).load(&wasm).unwrap(), "t", &[0x80], FUEL_MAX)
    };
    assert_eq!(frame_of(900), Some(Err(Failure::TaskError("A".into()))));
    assert_eq!(frame_of(1_100), Some(Err(Failure::StackOverflow)));
}

#[test]
fn what_cannot_be_compiled_fails_at_load() {
    let registers = format!("(func $big (local {}))", "i64 ".repeat(49_000));
    let wasm = wat::parse_str(module(&registers, "(call $big) (i64.const 0x00000003_80000002)")).unwrap();
    for limits in [Limits::host(), Limits { module_bytes_max: wasm.len(), ..Limits::chip() }] {
        assert!(matches!(Engine::new(limits).load(&wasm), Err(LoadError::Invalid(_))));
    }
}

#[test]
fn many_locals_and_many_functions_do_not_hurt() {
    let locals = module(&format!("(func (local {}))", "i64 ".repeat(49_000)), "(i64.const 0)");
    // Refused or harmless: the engine must only return.
    if let Ok(module) = load(&locals) {
        run(&module, "t", &[0x80], 10_000);
    }
    let functions = refused(&module(&"(func)".repeat(30_000), "(i64.const 0)"));
    assert!(matches!(functions, LoadError::Invalid(_)));
}
