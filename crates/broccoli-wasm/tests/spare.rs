//! A run in a kept instance cannot tell it from a new one, and what cannot be made fresh is not kept.

mod common;

use broccoli_wasm::{Engine, Failure, Limits, Module, Run, Spare, Step};
use common::{IMPORT_LOG, IMPORT_SLEEP, Quiet, load};
use proptest::prelude::*;

/// Steps of a run before it is aborted, and their fuel.
const STEPS_MAX: usize = 20;
const FUEL: u64 = 2_000;

/// A module whose task `t() -> i64` returns a digest of all that it can see, computed before its `body` runs.
///
/// Its memory has 600 bytes, with data at 40 and 300. Its globals are `$i`, `$l`, `$f`, `$d`, the last of which only
/// `exports` export, and its table has the functions `$one` and `$two`, and two empty places.
fn module(exports: &str, body: &str, end: &str) -> String {
    format!(
        r#"(module
            {IMPORT_LOG} {IMPORT_SLEEP}
            (memory (export "memory") 600 (pagesize 1))
            (data (i32.const 40) "some data")
            (data (i32.const 300) "\01\00\02")
            (global $i (export "i") (mut i32) (i32.const -5))
            (global $l (export "l") (mut i64) (i64.const 1234567890123))
            (global $f (export "f") (mut f32) (f32.const -0.5))
            (global $d (mut f64) (f64.const nan:0x123))
            (global $fixed (export "fixed") i32 (i32.const 3))
            {exports}
            (type $number (func (result i32)))
            (table $t 4 funcref)
            (elem (i32.const 0) func $one $two)
            (elem declare func $two)
            (func $one (result i32) (i32.const 1))
            (func $two (result i32) (i32.const 2))
            (func $number_at (param i32) (result i64)
                (i64.extend_i32_s (call_indirect (type $number) (local.get 0))))
            (func $digest (result i64) (local $sum i64) (local $at i32)
                (block $end (loop $next
                    (br_if $end (i32.ge_u (local.get $at) (memory.size)))
                    (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.load8_u (local.get $at))))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br $next)))
                (local.set $sum (i64.xor (local.get $sum) (i64.extend_i32_s (global.get $i))))
                (local.set $sum (i64.mul (i64.xor (local.get $sum) (global.get $l)) (i64.const 31)))
                (local.set $sum (i64.xor (local.get $sum) (i64.extend_i32_s (i32.reinterpret_f32 (global.get $f)))))
                (local.set $sum (i64.mul (local.get $sum) (i64.const 31)))
                (local.set $sum (i64.xor (local.get $sum) (i64.reinterpret_f64 (global.get $d))))
                (local.set $sum (i64.add (local.get $sum) (call $number_at (i32.const 0))))
                (local.set $sum (i64.mul (local.get $sum) (i64.const 31)))
                (local.set $sum (i64.add (local.get $sum) (call $number_at (i32.const 1))))
                (i64.and (local.get $sum) (i64.const -129)))
            (func (export "broccoli_alloc") (param i32) (result i32) (i32.const 580))
            (func (export "task_t") (param i32 i32) (result i64) (local $digest i64)
                (local.set $digest (call $digest))
                {body}
                (i32.store8 (i32.const 0) (i32.const 0x1b))
                (i64.store (i32.const 1) (local.get $digest))
                (i32.store16 (i32.const 100) (i32.const 0x4161))
                {end})
            (@custom "broccoli.abi" "\01")
            (@custom "broccoli.tasks" "\84\61t\80\63i64\60"))"#
    )
}

const ALL: &str = r#"(export "d" (global $d))"#;
const VALUE: &str = "(i64.const 9)";
const ERROR: &str = "(i64.const 0x64_80000002)";
const WRITES: &str = "(memory.fill (i32.const 0) (i32.const 0xab) (i32.const 600))
    (global.set $i (i32.const 1)) (global.set $l (i64.const 2))
    (global.set $f (f32.const 3)) (global.set $d (f64.const 4))";

/// What can be seen of a run from outside: its steps, its fuel, and its log.
type Seen = (Vec<Step>, u64, Vec<String>);

fn seen(run: &mut Run<Quiet>) -> Seen {
    let mut steps = Vec::new();
    while steps.len() < STEPS_MAX {
        steps.push(run.step(FUEL));
        if matches!(steps.last(), Some(Step::Done(_))) {
            break;
        }
    }
    (steps, run.fuel_used(), run.host().lines.clone())
}

fn fresh(module: &Module) -> Seen {
    seen(&mut module.start("t", &[0x80], Quiet::default()).expect("starts"))
}

fn with(module: &Module, spare: &mut Spare<Quiet>) -> Seen {
    let mut run = module.start_with("t", &[0x80], Quiet::default(), spare).expect("starts");
    assert!(spare.is_empty());
    let seen = seen(&mut run);
    run.keep(spare);
    seen
}

/// Runs a module several times. Whether its instance is kept.
fn is_kept(wat: &str) -> bool {
    let module = load(wat).expect("is a module");
    let (expected, mut spare) = (fresh(&module), Spare::new());
    let mut kept = Vec::new();
    for _ in 0..3 {
        assert_eq!(with(&module, &mut spare), expected, "{wat}");
        kept.push(!spare.is_empty());
    }
    assert!(kept.iter().all(|&now| now == kept[0]), "{kept:?}");
    kept[0]
}

#[test]
fn a_run_sees_nothing_of_the_one_before() {
    assert!(is_kept(&module(ALL, WRITES, VALUE)));
    assert!(is_kept(&module(ALL, WRITES, ERROR)));
    let initialize = r#"(func (export "_initialize") (global.set $i (i32.mul (global.get $i) (i32.const 2))))"#;
    assert!(is_kept(&module(&format!("{ALL} {initialize}"), WRITES, VALUE)));
}

#[test]
fn the_digest_depends_on_all_that_can_change() {
    let digest = |wat: &str| fresh(&load(wat).unwrap()).0;
    let whole = module(ALL, "", VALUE);
    for (from, to) in [
        ("some data", "some date"),
        (r"\01\00\02", r"\01\00\03"),
        ("(i32.const -5)", "(i32.const -6)"),
        ("1234567890123", "1234567890124"),
        ("-0.5", "-0.25"),
        ("nan:0x123", "nan:0x124"),
        ("func $one $two)\n", "func $two $one)\n"),
    ] {
        assert_ne!(digest(&whole), digest(&whole.replacen(from, to, 1)), "{from}");
    }
}

#[test]
fn a_run_that_did_not_return_leaves_no_instance() {
    for end in [
        "(unreachable)",
        "(i64.load (i32.const 597))",
        "(loop $again (br $again)) (i64.const 0)",
        "(call $log (i32.const 599) (i32.const 2)) (i64.const 0)",
    ] {
        assert!(!is_kept(&module(ALL, WRITES, end)), "{end}");
    }
    // A result that does not count was returned, too.
    assert!(is_kept(&module(ALL, WRITES, "(i64.const 0x1000_00000001)")));
}

#[test]
fn a_run_that_is_aborted_leaves_no_instance() {
    let wat = module(ALL, "(call $sleep (i32.const 9))", VALUE);
    let sleeping = load(&wat).unwrap();
    let (steps, ..) = fresh(&sleeping);
    assert!(steps.contains(&Step::Sleep { ms: 9 }) && steps.contains(&Step::Yielded), "{steps:?}");
    let mut spare = Spare::new();
    for aborted_at in 0..steps.len() {
        let mut run = sleeping.start_with("t", &[0x80], Quiet::default(), &mut spare).unwrap();
        for step in &steps[..aborted_at] {
            assert_eq!(run.step(FUEL), *step);
        }
        run.keep(&mut spare);
        assert!(spare.is_empty(), "{aborted_at}");
    }
    assert!(is_kept(&wat));
}

#[test]
fn an_instance_with_more_memory_is_not_kept() {
    assert!(!is_kept(&module(ALL, "(drop (memory.grow (i32.const 1)))", VALUE)));
    assert!(is_kept(&module(ALL, "(drop (memory.grow (i32.const 0)))", VALUE)));
}

#[test]
fn globals_that_are_not_exported_prevent_it() {
    assert!(!is_kept(&module("", "", VALUE)));
    // Twice the same one, instead of all.
    assert!(!is_kept(&module(r#"(export "again" (global $i))"#, "", VALUE)));
    let reference = |which: &str| format!(r#"{ALL} (global (export "r") {which} (ref.func $two))"#);
    assert!(is_kept(&module(&reference("funcref"), "", VALUE)));
    assert!(!is_kept(&module(&reference("(mut funcref)"), "", VALUE)));
    let many = |count: usize| -> String {
        (0..count).map(|n| format!(r#"(global (export "g{n}") (mut i32) (i32.const {n}))"#)).collect()
    };
    assert!(is_kept(&module(&format!("{ALL} {}", many(59)), "", VALUE)));
    assert!(!is_kept(&module(&format!("{ALL} {}", many(60)), "", VALUE)));
    assert!(!is_kept(&module(&format!("{ALL} {}", many(64)), "", VALUE)));
}

/// Instructions that leave no trace but in memory and globals. Their operands contain the codes of those that do.
const HARMLESS: [&str; 32] = [
    "(nop)",
    "(block (result i32) (i32.const 38)) drop",
    "(block $b (loop $l (br_if $b (i32.const 1)) (br $l)))",
    "(block $a (block $b (br_table $a $b $a $b (i32.const 38))))",
    "(if (i32.const 0) (then (unreachable)) (else (nop)))",
    "(if (result i64) (i32.const 0) (then (i64.const 1)) (else (i64.const -1))) drop",
    "(i32.const 0) (i64.const 1) (block (param i32 i64) (result i32) drop) drop",
    "(drop (call $one))",
    "(drop (call_indirect (type $number) (i32.const 1)))",
    "(drop (select (i32.const 1) (i32.const 2) (i32.const 0)))",
    "(drop (select (result i64) (i64.const 1) (i64.const 2) (i32.const 0)))",
    "(local.set 0 (local.tee 1 (local.get 0)))",
    "(global.set $i (i32.const 0x26))",
    "(drop (i32.const -2147483648)) (drop (i32.const 0x7fffffff)) (drop (i32.const -1))",
    "(drop (i64.const -9223372036854775808)) (drop (i64.const 0x7fffffffffffffff)) (drop (i64.const 0x0e_7c))",
    "(drop (i32.const 0x77c))",
    "(drop (f32.const 1.1754944e-38)) (drop (f32.const -nan:0x260efc))",
    "(drop (f64.const -nan:0x260efc260efc2))",
    "(drop (i32.load offset=38 (i32.const 8)))",
    "(drop (i64.load32_s offset=380 align=1 (i32.const 8)))",
    "(f64.store offset=38 (i32.const 8) (f64.const 1))",
    "(i64.store8 offset=124 (i32.const 8) (i64.const 1))",
    "(drop (memory.size))",
    "(memory.copy (i32.const 8) (i32.const 0) (i32.const 100))",
    "(memory.fill (i32.const 8) (i32.const 0x26) (i32.const 100))",
    "(drop (i64.trunc_sat_f64_u (f64.const -1)))",
    "(drop (i32.extend8_s (i32.const 0xfc)))",
    "(drop (i64.rotr (i64.extend32_s (i64.const 1)) (i64.const 38)))",
    "(drop (table.size $t))",
    "(drop (table.get $t (i32.const 0)))",
    "(drop (ref.is_null (ref.null func)))",
    "(drop (ref.func $two))",
];

/// Instructions that change what cannot be restored.
const CHANGES: [&str; 8] = [
    "(table.set $t (i32.const 1) (ref.func $two))",
    "(drop (table.grow $t (ref.null func) (i32.const 1)))",
    "(table.fill $t (i32.const 0) (ref.null func) (i32.const 2))",
    "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))",
    "(table.init $t $functions (i32.const 0) (i32.const 0) (i32.const 1))",
    "(elem.drop $functions)",
    "(memory.init $bytes (i32.const 0) (i32.const 0) (i32.const 1))",
    "(data.drop $bytes)",
];

#[test]
fn modules_that_can_change_more_are_never_kept() {
    let parts = format!(r#"{ALL} (elem $functions func $two) (data $bytes "passive")"#);
    assert!(is_kept(&module(&parts, "", VALUE)));
    for harmless in HARMLESS {
        assert!(is_kept(&module(&parts, harmless, VALUE)), "{harmless}");
        for changes in CHANGES {
            let both = format!("{harmless} (if (i32.const 0) (then {changes}))");
            assert!(!is_kept(&module(&parts, &both, VALUE)), "{both}");
        }
    }
    for changes in CHANGES {
        assert!(!is_kept(&module(&parts, changes, VALUE)), "{changes}");
        assert!(!is_kept(&module(&format!("{parts} (func {changes})"), "", VALUE)), "{changes}");
    }
}

#[test]
fn large_memories_are_not_kept() {
    let pages = |count: usize| module(ALL, "", VALUE).replace("600 (pagesize 1)", &count.to_string());
    // Too large for a digest, so without one.
    let wat = |count: usize| pages(count).replace("(local.set $digest (call $digest))", "");
    assert!(is_kept(&wat(16)));
    assert!(!is_kept(&wat(17)));
}

#[test]
fn an_instance_of_another_module_is_freed_first() {
    let (one, other) = (load(&module(ALL, "", VALUE)).unwrap(), load(&module(ALL, WRITES, ERROR)).unwrap());
    let mut spare = Spare::new();
    for module in [&one, &other, &other, &one] {
        assert_eq!(with(module, &mut spare), fresh(module));
        assert!(!spare.is_empty());
    }
    spare.clear();
    assert!(spare.is_empty());
}

#[test]
fn limits_and_the_host_are_new_for_each_run() {
    let logs = "(call $log (i32.const 40) (i32.const 9))";
    let wasm = wat::parse_str(module(ALL, &logs.repeat(2), VALUE)).unwrap();
    let limits = Limits { log_bytes_max: 10, ..Limits::host() };
    let (module, mut spare) = (Engine::new(limits).load(&wasm).unwrap(), Spare::new());
    for _ in 0..3 {
        let (_, _, lines) = with(&module, &mut spare);
        assert_eq!(lines, ["some data", "log limit reached, further lines are dropped"]);
    }
}

#[test]
fn the_example_modules_are_kept() {
    let host = |wasm: &[u8]| Engine::new(Limits::host()).load(wasm).unwrap();
    let modules: [(Module, &str, &[u8]); 4] = [
        (host(include_bytes!("../../../functions/tasks.wasm")), "identity", b"\x81\xf6"),
        (host(include_bytes!("../../../functions/types.wasm")), "increment", b"\x81\x01"),
        (host(include_bytes!("../../../functions/flow.wasm")), "tell", b"\x81\x01"),
        (host(include_bytes!("../../../functions/c/hello.wasm")), "hello", b"\x81\x61C"),
    ];
    for (module, function, args) in modules {
        let mut spare = Spare::new();
        let mut run = module.start_with(function, args, Quiet::default(), &mut spare).expect(function);
        assert!(matches!(run.step(1_000_000), Step::Done(Ok(_))), "{function}");
        run.keep(&mut spare);
        assert!(!spare.is_empty(), "{function}");
    }
}

fn bulk(name: &str, to: u32, from: u32, len: u32) -> String {
    format!("(memory.{name} (i32.const {to}) (i32.const {from}) (i32.const {len}))")
}

/// An instruction, and whether a module with it can be kept.
fn instructions() -> impl Strategy<Value = (String, bool)> {
    let (at, len) = (0..640u32, 0..64u32);
    prop_oneof![
        6 => (at.clone(), any::<i64>())
            .prop_map(|(at, n)| (format!("(i64.store (i32.const {at}) (i64.const {n}))"), true)),
        4 => (at.clone(), any::<u8>(), len.clone()).prop_map(|(at, n, len)| (bulk("fill", at, n.into(), len), true)),
        2 => (at.clone(), at, len).prop_map(|(to, from, len)| (bulk("copy", to, from, len), true)),
        4 => any::<i32>().prop_map(|n| (format!("(global.set $i (i32.const {n}))"), true)),
        2 => any::<i64>().prop_map(|n| (format!("(global.set $l (i64.const {n}))"), true)),
        2 => any::<i16>().prop_map(|n| (format!("(global.set $f (f32.const {n}))"), true)),
        2 => any::<i16>().prop_map(|n| (format!("(global.set $d (f64.const {n}))"), true)),
        4 => prop::sample::select(&HARMLESS[..]).prop_map(|known| (known.into(), true)),
        1 => prop::sample::select(&CHANGES[..]).prop_map(|known| (known.into(), false)),
        1 => (0..3u32).prop_map(|pages| (format!("(drop (memory.grow (i32.const {pages})))"), true)),
        1 => Just(("(call $log (i32.const 40) (i32.const 9))".into(), true)),
        1 => Just(("(call $sleep (i32.const 1))".into(), true)),
    ]
}

fn ends() -> impl Strategy<Value = &'static str> {
    let rare = ["(unreachable)", "(loop $again (br $again)) (i64.const 0)", "(i64.const 0x7fffffff)", ERROR];
    prop_oneof![4 => Just(VALUE), 1 => prop::sample::select(rare.to_vec())]
}

proptest! {
    /// Whatever a module does, none of its runs differs from the first.
    #[test]
    fn runs_of_random_modules_are_all_the_same(
        body in prop::collection::vec(instructions(), 0..12),
        end in ends(),
        exported in prop::bool::weighted(0.9),
    ) {
        let parts = r#"(elem $functions func $two) (data $bytes "passive")"#;
        let parts = format!("{} {parts}", if exported { ALL } else { "" });
        let text: Vec<_> = body.iter().map(|(text, _)| text.as_str()).collect();
        let wat = module(&parts, &text.join("\n"), end);
        let kept = is_kept(&wat);
        let restorable = exported && body.iter().all(|(_, restorable)| *restorable);
        prop_assert!(restorable || !kept);
        // It may trap, or grow its memory.
        let (steps, ..) = fresh(&load(&wat).unwrap());
        let returned = matches!(steps.last(), Some(Step::Done(Ok(_) | Err(Failure::TaskError(_)))));
        prop_assert!(kept || !restorable || !returned || wat.contains("memory.grow"));
    }
}
