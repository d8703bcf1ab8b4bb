//! The meaning of each form and option of a canvas: one minimal test for each rule.

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::canvas::{
    ArgumentError, CanvasError, Effects, Limits, Mode, Plan, Progress, Resolved, Room, StepId, lower, pinned_to,
};
use broccoli_proto::message::StepState;
use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cause, Cbor, Form, NodeId, Options, Outcome, Split, TaskError};
use minicbor::Encode;

// --- The functions of the tests, and a worker for them ---

const FUNCTIONS: [(&str, &[(&str, &str)]); 11] = [
    ("add", &[("x", "i64"), ("y", "i64")]),
    ("mul", &[("x", "i64"), ("y", "i64")]),
    ("tsum", &[("xs", "[i64]")]),
    ("identity", &[("x", "any")]),
    ("pair", &[("x", "any"), ("y", "?any")]),
    ("fail", &[("msg", "any")]),
    ("zero", &[]),
    ("log", &[("what", "any")]),
    // Replaces itself by n calls of itself with n - 1, and their sum; gives 1 for n = 0.
    ("tree", &[("n", "i64")]),
    // Returns its argument, but fails on this node.
    ("not_on", &[("node", "str")]),
    // Replaces itself by an encoded canvas.
    ("become", &[("canvas", "bytes")]),
];

fn functions() -> Vec<Function> {
    let arg = |(name, ty): &(&str, &str)| Arg { name: (*name).into(), ty: Type::parse(ty).expect("a type") };
    let function = |(name, args): (&str, &[(&str, &str)])| Function {
        name: name.into(),
        args: args.iter().map(arg).collect(),
        ret: Type::Any,
        doc: String::new(),
    };
    FUNCTIONS.into_iter().map(function).collect()
}

/// Executes one call like a worker.
fn apply(function: &str, args: &Cbor) -> Outcome {
    let ints = |args: &Cbor| args.decode::<(i64, i64)>().expect("two integers");
    match function {
        "tasks.add" => Ok(Cbor::encode(&(ints(args).0 + ints(args).1))),
        "tasks.mul" => Ok(Cbor::encode(&(ints(args).0 * ints(args).1))),
        "tasks.tsum" => Ok(Cbor::encode(&args.decode::<[Vec<i64>; 1]>().expect("a list")[0].iter().sum::<i64>())),
        "tasks.identity" => Ok(Cbor::from_encoded(args.elements().expect("a list")[0].to_vec())),
        "tasks.pair" => Ok(args.clone()),
        "tasks.zero" => Ok(Cbor::encode(&0)),
        "tasks.log" => Ok(Cbor::null()),
        "tasks.tree" => match args.decode::<[i64; 1]>().expect("a number")[0] {
            0 => Ok(Cbor::encode(&1)),
            n => Ok(Canvas::chord(vec![s("tree", [n - 1]); n as usize], f("tsum")).to_replacement()),
        },
        "tasks.become" => {
            let canvas = args.elements().expect("a list")[0].to_vec();
            let canvas = Cbor::from_encoded(canvas).decode::<minicbor::bytes::ByteVec>().expect("bytes");
            Ok(Canvas::from_wire(&canvas).expect("a canvas").to_replacement())
        }
        "tasks.fail" => Err(failure(
            function,
            &args.elements().map_or("".into(), |a| Cbor::from_encoded(a[0].to_vec()).to_string()),
        )),
        other => panic!("there is no {other}"),
    }
}

fn failure(function: &str, text: &str) -> TaskError {
    TaskError {
        function: function.into(),
        task: 0,
        node: None,
        attempt: 1,
        cause: Cause::Returned,
        text: text.into(),
        members: vec![],
    }
}

fn work(plan: &Plan, step: StepId) -> Outcome {
    let (call, args) = (plan.call(step), Cbor::from_encoded(plan.args(step).into_owned()));
    if call.name == "tasks.not_on" {
        let [node] = args.decode::<[String; 1]>().expect("a node");
        let is_here = pinned_to(&call.options.on) == Some(node.as_str());
        return if is_here { Err(failure(call.name, "not here")) } else { Ok(Cbor::encode(&node)) };
    }
    match call.mode {
        Mode::Single => apply(call.name, &args),
        Mode::Bin => {
            let results = args.elements().expect("a list of argument lists").into_iter();
            let results: Result<Vec<Cbor>, _> =
                results.map(|args| apply(call.name, &Cbor::from_encoded(args.to_vec()))).collect();
            results.map(|results| Cbor::array(results.iter().map(Cbor::as_bytes)))
        }
    }
}

// --- Ways to write and to run a canvas ---

const LIMITS: Limits =
    Limits { steps_max: 1_000_000, depth_max: 32, args_bytes_max: 1 << 24, result_bytes_max: 1 << 24 };

const ROOM: Room<'_> = Room { limits: &LIMITS, tasks: 1_000_000 };

/// The nodes of `each`, not in the order of names.
const NODES: [&str; 3] = ["pi-3", "pi-1", "pi-2"];

fn nodes(names: &[&str]) -> Vec<NodeId> {
    names.iter().map(|name| name.parse().expect("a name")).collect()
}

fn s<A: Encode<()>>(function: &str, args: A) -> Canvas {
    Canvas::task(function, Cbor::encode(&args))
}

fn si<A: Encode<()>>(function: &str, args: A) -> Canvas {
    immutable(s(function, args))
}

fn immutable(mut canvas: Canvas) -> Canvas {
    if let Form::Task(task) = &mut canvas.form {
        task.immutable = true;
    }
    canvas
}

/// A signature without arguments.
fn f(function: &str) -> Canvas {
    Canvas::task(function, Cbor::empty_array())
}

fn kwargs<V: Encode<()>>(mut canvas: Canvas, named: &[(&str, V)]) -> Canvas {
    if let Form::Task(task) = &mut canvas.form {
        task.kwargs = named.iter().map(|(n, v)| ((*n).into(), Cbor::encode(v))).collect();
    }
    canvas
}

fn map<I: Encode<()>>(function: &str, items: I) -> Canvas {
    Form::Map { function: function.into(), items: Cbor::encode(&items) }.into()
}

fn starmap<I: Encode<()>>(function: &str, items: I) -> Canvas {
    Form::Starmap { function: function.into(), items: Cbor::encode(&items) }.into()
}

fn chunks<I: Encode<()>>(function: &str, items: I, split: Split) -> Canvas {
    Form::Chunks { function: function.into(), items: Cbor::encode(&items), split }.into()
}

fn link(mut canvas: Canvas, callback: Canvas) -> Canvas {
    canvas.link.push(callback);
    canvas
}

fn on_error(mut canvas: Canvas, callback: Canvas) -> Canvas {
    canvas.on_error.push(callback);
    canvas
}

fn set(mut canvas: Canvas, options: Options) -> Canvas {
    canvas.options = options;
    canvas
}

fn resolver<'f>(functions: &'f [Function]) -> impl Fn(&str) -> Result<Resolved<'f>, String> {
    move |name| {
        let short = name.strip_prefix("tasks.").unwrap_or(name);
        let key = functions.iter().position(|function| function.name == short);
        let key = key.ok_or_else(|| format!("there is no function {name}"))?;
        Ok(Resolved { name: format!("tasks.{short}"), function: &functions[key], key: key as u32 })
    }
}

fn try_plan(canvas: &Canvas, limits: &Limits) -> Result<Plan, CanvasError> {
    lower(canvas, resolver(&functions()), limits)
}

fn plan(canvas: &Canvas) -> Plan {
    try_plan(canvas, &LIMITS).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(canvas: Canvas) -> String {
    match try_plan(&canvas, &LIMITS) {
        Ok(_) => panic!("accepted {canvas:?}"),
        Err(error) => error.to_string(),
    }
}

/// A job that ran to its end, with tasks in the order in which they became ready.
struct Run {
    result: Result<String, TaskError>,
    /// `add[1, 2]`, in order.
    calls: Vec<String>,
    failed_callbacks: Vec<String>,
}

fn run(canvas: Canvas) -> Run {
    run_plan(plan(&canvas))
}

fn run_plan(mut plan: Plan) -> Run {
    let (mut effects, mut calls, mut next) = (Effects::default(), vec![], 0);
    plan.start(&mut effects);
    plan.validate();
    loop {
        for step in std::mem::take(&mut effects.each) {
            plan.run_on_each(step, &nodes(&NODES), ROOM, &mut effects);
            plan.validate();
        }
        let Some(&step) = effects.ready.get(next) else { break };
        next += 1;
        calls.push(described(&plan, step));
        let outcome = work(&plan, step);
        end(&mut plan, step, outcome, &mut effects);
        plan.validate();
    }
    assert!(plan.is_finished());
    let result = match plan.result().expect("a finished job has a result") {
        Ok(result) => Ok(result.to_string()),
        Err(error) => Err(error.clone()),
    };
    let failed_callbacks = effects.failed_callbacks.iter().map(|e| e.text.clone()).collect();
    Run { result, calls, failed_callbacks }
}

/// Handles an outcome like an origin.
fn end(plan: &mut Plan, step: StepId, outcome: Outcome, effects: &mut Effects) {
    match outcome.as_ref().ok().and_then(Canvas::replacement) {
        None => assert!(plan.complete(step, outcome, effects)),
        Some(canvas) => {
            let canvas = canvas.expect("a canvas");
            if let Err(error) = plan.replace(step, &canvas, resolver(&functions()), ROOM, effects) {
                let error = failure(plan.call(step).name, &error.to_string());
                assert!(plan.complete(step, Err(error), effects));
            }
        }
    }
}

fn described(plan: &Plan, step: StepId) -> String {
    let args = Cbor::from_encoded(plan.args(step).into_owned());
    let node = pinned_to(&plan.call(step).options.on).map_or(String::new(), |node| format!("@{node}"));
    format!("{}{args}{node}", plan.call(step).name.trim_start_matches("tasks."))
}

fn result(canvas: Canvas) -> String {
    run(canvas).result.unwrap_or_else(|error| panic!("{error}"))
}

fn error(canvas: Canvas) -> TaskError {
    run(canvas).result.expect_err("the canvas should fail")
}

/// Starts a plan and returns the tasks that are ready at once.
fn started(plan: &mut Plan) -> Vec<StepId> {
    let mut effects = Effects::default();
    plan.start(&mut effects);
    effects.ready
}

fn completed(plan: &mut Plan, step: StepId) -> Vec<StepId> {
    let (outcome, mut effects) = (work(plan, step), Effects::default());
    assert!(plan.complete(step, outcome, &mut effects));
    plan.validate();
    effects.ready
}

// --- Signatures and chains ---

#[test]
fn chain_gives_the_result_of_the_last_step() {
    assert_eq!(result(Canvas::chain(vec![s("add", (4, 4)), s("mul", [8]), s("mul", [10])])), "640");
}

#[test]
fn a_parents_result_is_prepended() {
    let run = run(Canvas::chain(vec![s("identity", [1]), s("pair", [2])]));
    assert_eq!(run.calls, ["identity[1]", "pair[1, 2]"]);
}

#[test]
fn falsy_results_pass_like_any_other() {
    let falsy = [
        Cbor::encode(&0),
        Cbor::encode(&""),
        Cbor::null(),
        Cbor::empty_array(),
        Cbor::encode(&false),
        Cbor::encode(&0.0),
    ];
    for value in falsy {
        let first = Canvas::task("identity", Cbor::array([value.as_bytes()].into_iter()));
        let canvas = Canvas::chain(vec![first, f("identity"), s("pair", [7])]);
        assert_eq!(result(canvas), format!("[{value}, 7]"));
    }
}

#[test]
fn immutable_takes_nothing_from_its_parent() {
    let run = run(Canvas::chain(vec![s("add", (1, 1)), si("add", (5, 6))]));
    assert_eq!(run.calls, ["add[1, 1]", "add[5, 6]"]);
}

#[test]
fn a_list_result_is_one_argument() {
    let group = Canvas::group(vec![f("zero"), f("zero")]);
    let run = run(Canvas::chain(vec![group, s("pair", ["x"])]));
    assert_eq!(run.calls[2], "pair[[0, 0], \"x\"]");
}

#[test]
fn chain_of_one_is_its_step() {
    assert_eq!(result(Canvas::chain(vec![s("add", (1, 2))])), "3");
}

#[test]
fn nested_chains_are_one_after_the_other() {
    let inner = Canvas::chain(vec![s("add", [10]), s("mul", [2])]);
    assert_eq!(result(Canvas::chain(vec![s("add", (1, 1)), inner, s("add", [1])])), "25");
}

#[test]
fn intermediate_results_can_be_asked_for() {
    let mut plan = plan(&Canvas::chain(vec![s("add", (4, 4)), s("mul", [8])]));
    let first = started(&mut plan);
    let second = completed(&mut plan, first[0]);
    completed(&mut plan, second[0]);
    assert_eq!(plan.outcome(first[0]), Some(Ok(&Cbor::encode(&8))));
    assert_eq!(plan.result(), Some(Ok(&Cbor::encode(&64))));
}

#[test]
fn a_step_is_ready_only_after_the_one_before() {
    let mut plan = plan(&Canvas::chain(vec![f("zero"), f("identity"), f("identity")]));
    let first = started(&mut plan);
    assert_eq!(first.len(), 1);
    assert_eq!(completed(&mut plan, first[0]).len(), 1);
}

#[test]
fn an_empty_chain_is_refused() {
    assert_eq!(refusal(Canvas::chain(vec![])), "a chain needs at least one step");
}

// --- Groups ---

#[test]
fn group_results_are_in_the_order_of_writing_whatever_ends_first() {
    let mut plan = plan(&Canvas::group((0..4).map(|i| s("identity", [i])).collect()));
    let ready = started(&mut plan);
    assert_eq!(ready.len(), 4);
    ready.iter().rev().for_each(|&step| drop(completed(&mut plan, step)));
    assert_eq!(plan.result(), Some(Ok(&Cbor::encode(&[0, 1, 2, 3]))));
}

#[test]
fn group_of_one_gives_a_list() {
    assert_eq!(result(Canvas::group(vec![s("add", (1, 2))])), "[3]");
}

#[test]
fn empty_group_is_an_empty_list_at_once() {
    let mut plan = plan(&Canvas::group(vec![]));
    assert_eq!(started(&mut plan), []);
    assert!(plan.is_finished());
    assert_eq!(plan.result(), Some(Ok(&Cbor::empty_array())));
}

#[test]
fn nested_groups_give_nested_lists() {
    let inner = Canvas::group(vec![s("identity", [2]), s("identity", [3])]);
    let canvas = Canvas::group(vec![s("identity", [1]), inner, Canvas::group(vec![])]);
    assert_eq!(result(canvas), "[1, [2, 3], []]");
}

#[test]
fn a_result_goes_to_every_member_unless_immutable() {
    let nested = Canvas::group(vec![s("pair", ["b"])]);
    let chain = Canvas::chain(vec![f("identity"), s("pair", ["c"])]);
    let group = Canvas::group(vec![s("pair", ["a"]), nested, chain, si("identity", ["d"])]);
    assert_eq!(result(Canvas::chain(vec![s("identity", [7]), group])), "[[7, \"a\"], [[7, \"b\"]], [7, \"c\"], \"d\"]");
}

#[test]
fn empty_group_in_a_chain_passes_an_empty_list() {
    let canvas = Canvas::chain(vec![s("add", (1, 1)), Canvas::group(vec![]), f("tsum")]);
    assert_eq!(result(canvas), "0");
}

#[test]
fn a_step_after_a_group_gets_the_list() {
    let group = Canvas::group((0..10).map(|i| s("add", (i, i))).collect());
    assert_eq!(result(Canvas::chain(vec![group, f("tsum")])), "90");
}

// --- Chords ---

#[test]
fn chord_calls_its_body_with_the_list() {
    assert_eq!(result(Canvas::chord((0..10).map(|i| s("add", (i, i))).collect(), f("tsum"))), "90");
}

#[test]
fn chord_with_empty_header_calls_body_with_empty_list() {
    let run = run(Canvas::chord(vec![], f("identity")));
    assert_eq!((run.calls, run.result), (vec!["identity[[]]".into()], Ok("[]".into())));
}

#[test]
fn a_chord_in_a_chain_gives_the_result_to_its_header() {
    let chord = Canvas::chord(vec![s("add", [1]), s("add", [2])], f("tsum"));
    assert_eq!(result(Canvas::chain(vec![s("identity", [10]), chord, s("mul", [2])])), "46");
}

#[test]
fn the_body_waits_for_the_whole_header() {
    let mut plan = plan(&Canvas::chord(vec![f("zero"), f("zero")], f("tsum")));
    let header = started(&mut plan);
    assert_eq!(completed(&mut plan, header[1]), []);
    assert_eq!(completed(&mut plan, header[0]).len(), 1);
}

#[test]
fn an_immutable_body_gets_no_list() {
    assert_eq!(result(Canvas::chord(vec![f("zero")], si("add", (1, 2)))), "3");
}

// --- map, starmap, chunks ---

#[test]
fn map_calls_the_function_on_each_item() {
    let run = run(map("tsum", [[1, 2], [3, 4]]));
    assert_eq!(run.calls, ["tsum[[1, 2]]", "tsum[[3, 4]]"]);
    assert_eq!(run.result, Ok("[3, 7]".into()));
}

#[test]
fn starmap_calls_the_function_with_the_arguments_of_each_item() {
    let items: Vec<(i64, i64)> = (0..10).map(|i| (i, i)).collect();
    assert_eq!(result(starmap("add", items)), "[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]");
}

#[test]
fn map_starmap_and_chunks_of_nothing_give_an_empty_list() {
    let nothing: [(i64, i64); 0] = [];
    assert_eq!(result(map("identity", nothing)), "[]");
    assert_eq!(result(starmap("add", nothing)), "[]");
    assert_eq!(result(chunks("add", nothing, Split::Size(3))), "[]");
}

#[test]
fn map_starmap_and_chunks_take_nothing_from_a_parent() {
    let parent = || s("identity", ["parent"]);
    let after = |canvas| result(Canvas::chain(vec![parent(), canvas]));
    assert_eq!(after(map("identity", [1, 2])), "[1, 2]");
    assert_eq!(after(starmap("add", [(1, 2)])), "[3]");
    assert_eq!(after(chunks("add", [(1, 2)], Split::Bins(1))), "[[3]]");
}

fn bins(items: i64, split: Split) -> String {
    let items: Vec<[i64; 1]> = (0..items).map(|i| [i]).collect();
    result(chunks("identity", items, split))
}

#[test]
fn chunks_bins_larger_first() {
    assert_eq!(bins(7, Split::Bins(3)), "[[0, 1, 2], [3, 4], [5, 6]]");
    assert_eq!(bins(8, Split::Bins(3)), "[[0, 1, 2], [3, 4, 5], [6, 7]]");
}

#[test]
fn chunks_gives_n_lists_even_when_items_run_out() {
    assert_eq!(bins(2, Split::Bins(4)), "[[0], [1], [], []]");
    assert_eq!(bins(0, Split::Bins(2)), "[[], []]");
}

#[test]
fn chunks_by_size_has_a_shorter_last_bin() {
    assert_eq!(bins(5, Split::Size(2)), "[[0, 1], [2, 3], [4]]");
}

#[test]
fn chunks_of_the_seed_gives_ten_lists() {
    let items: Vec<(i64, i64)> = (0..100).map(|i| (i, i)).collect();
    let expected: Vec<Vec<i64>> = (0..10).map(|b| (0..10).map(|i| 2 * (10 * b + i)).collect()).collect();
    let expected = Cbor::encode(&expected).to_string();
    assert_eq!(result(chunks("add", items, Split::Bins(10))), expected);
}

#[test]
fn each_bin_is_one_task() {
    let mut plan = plan(&chunks("add", [(0, 0), (1, 1), (2, 2)], Split::Bins(2)));
    let ready = started(&mut plan);
    assert_eq!(ready.iter().map(|&s| plan.call(s).mode).collect::<Vec<_>>(), [Mode::Bin; 2]);
    assert_eq!(described(&plan, ready[0]), "add[[0, 0], [1, 1]]");
}

#[test]
fn chunks_in_a_chain_behaves_as_a_group() {
    let canvas = chunks("add", [(0, 0), (1, 1)], Split::Bins(3));
    assert_eq!(result(Canvas::chain(vec![canvas, s("pair", [1])])), "[[[0], [2], []], 1]");
}

#[test]
fn chunks_into_nothing_is_refused() {
    let text = "tasks.add.chunks: n must be at least 1";
    assert_eq!(refusal(chunks("add", [(0, 0)], Split::Bins(0))), text);
    assert_eq!(refusal(chunks("add", [(0, 0)], Split::Size(0))), text);
}

#[test]
fn items_must_be_a_list() {
    assert_eq!(refusal(map("identity", 3)), "tasks.identity: the items must be a list");
}

#[test]
fn a_bad_item_is_named() {
    let starmap_of = |last: Cbor| -> Canvas {
        let good = Cbor::encode(&(1, 2));
        let items = Cbor::array([good.as_bytes(), good.as_bytes(), last.as_bytes()].into_iter());
        Form::Starmap { function: "add".into(), items }.into()
    };
    let cases = [
        (Cbor::encode(&5), "item 2: tasks.add: expected a list of arguments, got int"),
        (Cbor::encode(&[1]), "item 2: tasks.add takes 2 arguments (x: i64, y: i64), got 1"),
        (Cbor::encode(&(1, "a")), "item 2: tasks.add: argument y: expected i64, got str"),
    ];
    for (item, text) in cases {
        assert_eq!(refusal(starmap_of(item)), text);
    }
    assert_eq!(
        refusal(chunks("add", vec![vec![1, 2], vec![1, 2], vec![1]], Split::Size(2))),
        "item 2: tasks.add takes 2 arguments (x: i64, y: i64), got 1"
    );
    assert_eq!(refusal(map("tsum", [vec!["a"]])), "item 0: tasks.tsum: argument xs: expected i64, got str");
}

// --- Errors ---

#[test]
fn a_failed_step_fails_its_chain_and_later_steps_never_run() {
    let canvas = Canvas::chain(vec![s("fail", [1]), f("log"), map("log", [1, 2])]);
    let mut plan = plan(&canvas);
    let ready = started(&mut plan);
    assert_eq!(completed(&mut plan, ready[0]), []);
    assert_eq!(plan.result(), Some(Err(&failure("tasks.fail", "1"))));
    assert_eq!(plan.progress(), Progress { done: 4, total: 4 });
    assert!(plan.is_finished());
}

#[test]
fn a_group_fails_only_after_all_its_members_have_ended() {
    let mut plan = plan(&Canvas::group(vec![f("zero"), s("fail", [1]), f("zero")]));
    let ready = started(&mut plan);
    completed(&mut plan, ready[1]);
    completed(&mut plan, ready[0]);
    assert_eq!(plan.result(), None);
    completed(&mut plan, ready[2]);
    assert!(plan.result().is_some_and(|result| result.is_err()));
}

#[test]
fn a_group_fails_with_the_error_of_the_lowest_index() {
    let mut plan = plan(&Canvas::group(vec![f("zero"), s("fail", [1]), s("fail", [2])]));
    let ready = started(&mut plan);
    ready.iter().rev().for_each(|&step| drop(completed(&mut plan, step)));
    let expected = TaskError { members: vec![1], ..failure("tasks.fail", "1") };
    assert_eq!(plan.result(), Some(Err(&expected)));
}

#[test]
fn an_error_names_the_members_outermost_first() {
    let inner = Canvas::group(vec![f("log"), f("log"), f("fail")]);
    let chain = Canvas::chain(vec![f("zero"), inner]);
    assert_eq!(error(Canvas::group(vec![f("zero"), chain])).members, [1, 2]);
}

#[test]
fn a_failed_header_fails_the_chord_and_its_body_never_runs() {
    let run = run(Canvas::chord(vec![f("zero"), s("fail", ["no"])], f("tsum")));
    assert_eq!(run.calls, ["zero[]", "fail[\"no\"]"]);
    assert_eq!(run.result.map_err(|error| error.members), Err(vec![1]));
}

#[test]
fn map_fails_with_its_lowest_item() {
    let error = error(map("fail", ["a", "b"]));
    assert_eq!((error.text.as_str(), error.members), ("\"a\"", vec![0]));
}

#[test]
fn a_result_over_the_limit_fails_the_task() {
    let limits = Limits { result_bytes_max: 8, ..LIMITS };
    let plan = try_plan(&s("identity", ["123456789"]), &limits).unwrap();
    let error = run_plan(plan).result.unwrap_err();
    assert_eq!(error.to_string(), "tasks.identity: the result has 10 bytes, the limit is 8 (step 0)");
    assert_eq!(error.cause, Cause::Unfit);
}

#[test]
fn a_list_over_the_limit_fails_the_group_but_a_failed_member_comes_first() {
    let limits = Limits { result_bytes_max: 8, ..LIMITS };
    let members = vec![s("identity", ["12345"]); 3];
    let plan = try_plan(&Canvas::group(members.clone()), &limits).unwrap();
    let error = run_plan(plan).result.unwrap_err();
    assert_eq!(error.text, "the list of 3 results has 18 bytes, the limit is 8");
    assert_eq!((error.cause, error.members), (Cause::Unfit, vec![]));

    let failing = members.into_iter().chain([s("fail", [1]), s("identity", [1])]).collect();
    let plan = try_plan(&Canvas::group(failing), &limits).unwrap();
    let error = run_plan(plan).result.unwrap_err();
    assert_eq!((error.text.as_str(), error.members), ("1", vec![3]));
}

// --- Callbacks ---

#[test]
fn link_is_called_once_with_the_result() {
    let run = run(link(s("add", (1, 2)), s("pair", ["linked"])));
    assert_eq!(run.calls, ["add[1, 2]", "pair[3, \"linked\"]"]);
    assert_eq!(run.result, Ok("3".into()));
}

#[test]
fn on_error_is_called_once_with_task_and_error() {
    let run = run(on_error(s("fail", [1]), s("pair", ["seen"])));
    assert_eq!(run.calls[1], "pair[{\"task\": \"tasks.fail\", \"error\": \"1\"}, \"seen\"]");
    assert_eq!(run.calls.len(), 2);
    assert_eq!(run.result.unwrap_err().text, "1");
}

#[test]
fn link_is_not_called_on_failure_nor_on_error_on_success() {
    let both = |canvas| on_error(link(canvas, s("pair", ["link"])), s("pair", ["error"]));
    assert_eq!(run(both(f("zero"))).calls, ["zero[]", "pair[0, \"link\"]"]);
    assert_eq!(run(both(s("fail", [1]))).calls.len(), 2);
}

#[test]
fn callbacks_of_a_form_get_its_result_once() {
    let group = Canvas::group(vec![link(s("add", (1, 1)), s("pair", ["member"])), f("zero")]);
    let chord = link(Canvas::chord(vec![group], f("identity")), s("pair", ["chord"]));
    let mut calls = run(link(Canvas::chain(vec![chord]), s("pair", ["chain"]))).calls;
    calls.retain(|call| call.starts_with("pair"));
    calls.sort();
    assert_eq!(calls, ["pair[2, \"member\"]", "pair[[[2, 0]], \"chain\"]", "pair[[[2, 0]], \"chord\"]"]);
    let starmap = link(starmap("add", [(1, 2)]), s("pair", ["starmap"]));
    assert_eq!(run(starmap).calls[1], "pair[[3], \"starmap\"]");
}

#[test]
fn on_error_runs_at_every_level_that_failed() {
    let task = on_error(s("fail", [1]), s("pair", ["task"]));
    let chain = on_error(Canvas::chain(vec![task, f("log")]), s("pair", ["chain"]));
    let group = on_error(Canvas::group(vec![chain, f("zero")]), s("pair", ["group"]));
    let mut calls = run(group).calls;
    calls.retain(|call| call.starts_with("pair"));
    calls.sort();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().zip(["chain", "group", "task"]).all(|(call, level)| call.contains(level)));
}

#[test]
fn callbacks_of_a_step_that_never_ran_are_not_called() {
    let never = on_error(link(f("log"), f("log")), f("log"));
    let run = run(Canvas::chain(vec![s("fail", [1]), never]));
    assert_eq!(run.calls, ["fail[1]"]);
}

#[test]
fn a_callback_can_be_any_canvas() {
    let callback = Canvas::chain(vec![s("add", [1]), Canvas::group(vec![s("pair", ["end"])])]);
    let run = run(link(s("add", (1, 1)), callback));
    assert_eq!(run.calls, ["add[1, 1]", "add[2, 1]", "pair[3, \"end\"]"]);
    assert_eq!(run.result, Ok("2".into()));
}

#[test]
fn a_failing_callback_is_reported_and_does_not_fail_the_job() {
    let callback = on_error(f("fail"), s("pair", ["nested"]));
    let run = run(link(s("add", (1, 1)), callback));
    assert_eq!(run.result, Ok("2".into()));
    assert_eq!(run.failed_callbacks, ["2"]);
    assert!(run.calls[2].ends_with("\"nested\"]"), "{:?}", run.calls);
}

#[test]
fn the_result_is_known_before_the_callbacks_end() {
    let mut plan = plan(&link(f("zero"), f("log")));
    let ready = started(&mut plan);
    let callbacks = completed(&mut plan, ready[0]);
    assert_eq!(plan.result(), Some(Ok(&Cbor::encode(&0))));
    assert!(!plan.is_finished());
    completed(&mut plan, callbacks[0]);
    assert!(plan.is_finished());
}

#[test]
fn a_member_keeps_its_result_for_its_callbacks() {
    let mut plan = plan(&Canvas::group(vec![link(s("add", (1, 1)), f("log"))]));
    let ready = started(&mut plan);
    let callbacks = completed(&mut plan, ready[0]);
    assert_eq!(plan.result(), Some(Ok(&Cbor::encode(&[2]))));
    assert_eq!(described(&plan, callbacks[0]), "log[2]");
}

// --- Options ---

fn options_of(canvas: &Canvas) -> Vec<Options> {
    let mut plan = plan(canvas);
    let (mut all, mut ready) = (vec![], started(&mut plan));
    while let Some(step) = ready.pop() {
        all.push(plan.call(step).options.clone());
        let more = completed(&mut plan, step);
        ready.extend(more);
    }
    all
}

fn priority(priority: u8) -> Options {
    Options { priority: Some(priority), ..Options::default() }
}

#[test]
fn options_on_a_canvas_are_defaults_for_its_tasks() {
    let task = set(f("zero"), Options { retries: Some(1), on: vec!["led".into()], ..priority(2) });
    let defaults = Options { retries: Some(9), timeout_ms: Some(50), ..priority(7) };
    let canvas = set(Canvas::group(vec![task, f("zero")]), defaults.clone());
    let mixed = Options { retries: Some(1), on: vec!["led".into()], timeout_ms: Some(50), ..priority(2) };
    assert_eq!(options_of(&canvas), [defaults, mixed]);
}

#[test]
fn options_reach_every_form() {
    let inner = vec![
        Canvas::chain(vec![f("zero")]),
        Canvas::chord(vec![f("zero")], f("tsum")),
        map("identity", [1]),
        starmap("add", [(1, 1)]),
        chunks("add", [(1, 1)], Split::Bins(1)),
    ];
    let canvas = set(Canvas::group(inner), priority(3));
    assert_eq!(options_of(&canvas), vec![priority(3); 6]);
}

#[test]
fn callbacks_inherit_no_options() {
    let canvas = link(set(f("zero"), priority(3)), set(f("log"), priority(4)));
    assert_eq!(options_of(&canvas), [priority(3), priority(4)]);
    assert_eq!(options_of(&link(set(f("zero"), priority(3)), f("log")))[1], Options::default());
}

#[test]
fn countdown_is_handed_on() {
    let options = Options { countdown_ms: Some(1500), ..Options::default() };
    assert_eq!(options_of(&set(f("zero"), options.clone())), [options]);
}

#[test]
fn priority_is_0_to_9() {
    assert_eq!(options_of(&set(f("zero"), priority(9))), [priority(9)]);
    assert_eq!(refusal(set(f("zero"), priority(10))), "priority is 10, must be 0 to 9");
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let rate = |tasks, per_ms| Some(Rate { tasks, per_ms });
    let none = Options::default();
    let on = |n| vec!["led".to_string(); n];
    let refused = [
        (Options { retries: Some(1001), ..none.clone() }, "retries is 1001, must be 0 to 1000"),
        (Options { timeout_ms: Some(0), ..none.clone() }, "timeout is 0 ms, must be 1 to 10000000000000 ms"),
        (Options { expires_ms: Some(0), ..none.clone() }, "expires is 0 ms, must be 1 to 10000000000000 ms"),
        (
            Options { countdown_ms: Some(u64::MAX), ..none.clone() },
            "countdown is 18446744073709551615 ms, must be 0 to 10000000000000 ms",
        ),
        (
            Options { eta_unix_ms: Some(10_000_000_000_001), ..none.clone() },
            "eta is 10000000000001 ms, must be 0 to 10000000000000 ms",
        ),
        (Options { on: on(17), ..none.clone() }, "on has 17 entries, must be 0 to 16"),
        (
            Options { on: vec![String::new()], ..none.clone() },
            "on has an empty entry, must be a node, a label or a capability",
        ),
        (
            Options { rate: rate(0, 1_000), ..none.clone() },
            "rate is 0 in 1000 ms, must be 1 to 1000000 in a second or longer",
        ),
        (
            Options { rate: rate(1_001, 1), ..none.clone() },
            "rate is 1001 in 1 ms, must be 1 to 1000000 in a second or longer",
        ),
        (Options { rate: rate(1, 0), ..none }, "rate is 1 in 0 ms, must be 1 to 1000000 in a second or longer"),
    ];
    for (options, text) in refused {
        assert_eq!(refusal(set(f("zero"), options.clone())), text);
        // On any form.
        assert_eq!(refusal(set(Canvas::group(vec![]), options)), text);
    }
}

#[test]
fn options_of_time_are_handed_on() {
    let options = Options {
        backoff_ms: Some(0),
        backoff_max_ms: Some(10_000_000_000_000),
        jitter: Some(false),
        expires_ms: Some(1),
        eta_unix_ms: Some(0),
        rate: Some(Rate { tasks: u32::MAX, per_ms: u32::MAX }),
        ..Options::default()
    };
    assert_eq!(options_of(&set(f("zero"), options.clone())), [options]);
}

// --- Arguments ---

#[test]
fn the_number_of_arguments_is_checked() {
    let cases = [
        (s("add", (1, 2, 3)), "tasks.add takes 2 arguments (x: i64, y: i64), got 3"),
        (f("add"), "tasks.add takes 2 arguments (x: i64, y: i64), got 0"),
        (f("tsum"), "tasks.tsum takes 1 argument (xs: [i64]), got 0"),
        (s("zero", [1]), "tasks.zero takes no arguments, got 1"),
        (f("pair"), "tasks.pair takes 1 to 2 arguments (x: any, y: ?any), got 0"),
    ];
    for (canvas, text) in cases {
        assert_eq!(refusal(canvas), text);
    }
}

#[test]
fn a_parents_result_counts_but_its_type_is_not_looked_at() {
    let after = |canvas| Canvas::chain(vec![s("identity", ["text"]), canvas]);
    let parent = "(the first is the result before it)";
    assert_eq!(
        refusal(after(s("add", (1, 2)))),
        format!("tasks.add takes 2 arguments (x: i64, y: i64), got 3 {parent}")
    );
    assert_eq!(refusal(after(f("zero"))), format!("tasks.zero takes no arguments, got 1 {parent}"));
    assert!(try_plan(&after(s("add", [1])), &LIMITS).is_ok());
    assert_eq!(refusal(after(s("add", ["b"]))), "tasks.add: argument y: expected i64, got str");
}

#[test]
fn constant_arguments_are_checked_by_type() {
    let error = try_plan(&s("add", (1, "a")), &LIMITS).unwrap_err();
    assert_eq!(error.to_string(), "tasks.add: argument y: expected i64, got str");
    assert!(matches!(error, CanvasError::Arguments { error: ArgumentError::Type(..), .. }));
}

#[test]
fn keyword_arguments_bind_by_name() {
    assert_eq!(run(kwargs(f("pair"), &[("y", 2), ("x", 1)])).calls, ["pair[1, 2]"]);
    assert_eq!(run(kwargs(s("pair", [1]), &[("y", 2)])).calls, ["pair[1, 2]"]);
    let chain = Canvas::chain(vec![f("zero"), kwargs(f("pair"), &[("y", 2)])]);
    assert_eq!(run(chain).calls[1], "pair[0, 2]");
}

#[test]
fn keyword_arguments_that_do_not_fit_are_refused() {
    let cases = [
        (kwargs(f("add"), &[("z", 1)]), "tasks.add: there is no argument z"),
        (kwargs(s("add", [1]), &[("x", 1)]), "tasks.add: argument x is given twice"),
        (kwargs(f("add"), &[("x", 1), ("x", 2)]), "tasks.add: argument x is given twice"),
        (kwargs(f("add"), &[("x", 1)]), "tasks.add: argument y is missing"),
    ];
    for (canvas, text) in cases {
        assert_eq!(refusal(canvas), text);
    }
    let parent = Canvas::chain(vec![f("zero"), kwargs(f("add"), &[("x", 1)])]);
    assert_eq!(refusal(parent), "tasks.add: argument x is given twice");
}

#[test]
fn an_optional_argument_may_be_left_out() {
    assert_eq!(run(s("pair", [1])).calls, ["pair[1, null]"]);
    assert_eq!(run(Canvas::chain(vec![f("zero"), f("pair")])).calls[1], "pair[0, null]");
}

#[test]
fn malformed_arguments_are_refused() {
    for bytes in [&[][..], &[0x82, 0x01], &[0x01], &[0x81, 0x9f, 0xff], &[0x81, 0x01, 0x01]] {
        let canvas = Canvas::task("identity", Cbor::from_encoded(bytes.to_vec()));
        let CanvasError::Arguments { error, .. } = try_plan(&canvas, &LIMITS).unwrap_err() else {
            panic!("{bytes:x?}");
        };
        assert!(matches!(error, ArgumentError::NotAList(_)), "{bytes:x?}");
    }
}

#[test]
fn an_unknown_function_is_refused_with_the_resolvers_words() {
    assert_eq!(refusal(f("nope")), "there is no function nope");
}

#[test]
fn each_name_is_resolved_once() {
    let (functions, mut asked) = (functions(), vec![]);
    let canvas = Canvas::group(vec![s("add", (1, 1)), s("tasks.add", (1, 1)), s("add", (2, 2))]);
    let resolve = |name: &str| {
        asked.push(name.to_owned());
        Ok(Resolved { name: "tasks.add".into(), function: &functions[0], key: 5 })
    };
    let mut plan = lower(&canvas, resolve, &LIMITS).unwrap();
    assert_eq!(asked, ["add", "tasks.add"]);
    assert!(started(&mut plan).iter().all(|&step| plan.call(step).key == 5));
}

// --- Limits ---

#[test]
fn depth_is_bounded() {
    let groups = |n: u32| (1..n).fold(f("zero"), |canvas, _| Canvas::group(vec![canvas]));
    let callbacks = |n: u32| link(f("zero"), (2..n).fold(f("log"), |below, _| link(f("log"), below)));
    for nested in [&groups as &dyn Fn(u32) -> Canvas, &callbacks] {
        assert!(try_plan(&nested(32), &LIMITS).is_ok());
        assert_eq!(refusal(nested(33)), "the canvas nests deeper than 32 levels");
    }
}

#[test]
fn the_number_of_steps_is_bounded_before_anything_is_built() {
    let limits = Limits { steps_max: 3, ..LIMITS };
    let text = "the canvas has more than 3 steps; split it into several jobs";
    let refused = |canvas: &Canvas| try_plan(canvas, &limits).unwrap_err().to_string();
    assert!(try_plan(&Canvas::group(vec![f("zero"); 2]), &limits).is_ok());
    assert_eq!(refused(&Canvas::group(vec![f("zero"); 3])), text);
    assert_eq!(refused(&chunks("add", [(1, 1)], Split::Bins(u32::MAX))), text);
    assert_eq!(refused(&map("identity", [0; 100])), text);
    assert_eq!(refused(&link(Canvas::group(vec![f("zero"); 2]), f("log"))), text);
}

#[test]
fn the_bytes_of_all_arguments_are_bounded() {
    let limits = Limits { args_bytes_max: 20, ..LIMITS };
    let group = |n| Canvas::group(vec![s("identity", ["12345678"]); n]);
    assert!(try_plan(&group(2), &limits).is_ok());
    let error = try_plan(&group(3), &limits).unwrap_err();
    assert_eq!(error.to_string(), "the arguments of the canvas are larger than 20 bytes");
}

#[test]
fn a_long_chain_of_steps_that_need_no_task_needs_no_deep_stack() {
    let mut steps = vec![Canvas::group(vec![]); 200_000];
    steps.push(f("identity"));
    assert_eq!(result_unchecked(&Canvas::chain(steps)), "[]");
}

/// Without `validate` after each step, which would take too long here.
fn result_unchecked(canvas: &Canvas) -> String {
    let mut plan = plan(canvas);
    let ready = started(&mut plan);
    completed(&mut plan, ready[0]);
    plan.result().map_or(String::new(), |result| result.map_or("".into(), Cbor::to_string))
}

// --- Outcomes and revocation ---

#[test]
fn the_first_outcome_of_a_task_counts() {
    let mut plan = plan(&Canvas::chain(vec![f("zero"), f("identity")]));
    let (ready, mut effects) = (started(&mut plan), Effects::default());
    assert!(plan.complete(ready[0], Ok(Cbor::encode(&1)), &mut effects));
    let before = effects.clone();
    assert!(!plan.complete(ready[0], Ok(Cbor::encode(&2)), &mut effects));
    assert!(!plan.complete(ready[0], Err(failure("f", "late")), &mut effects));
    assert_eq!(effects, before);
    assert_eq!(described(&plan, effects.ready[0]), "identity[1]");
}

#[test]
fn outcomes_of_what_is_no_running_task_are_ignored() {
    let mut plan = plan(&Canvas::chain(vec![f("zero"), f("identity")]));
    let mut effects = Effects::default();
    let none = |plan: &mut Plan, effects: &mut Effects| {
        (0..5).chain([u32::MAX]).all(|i| !plan.complete(StepId(i), Ok(Cbor::null()), effects))
    };
    assert!(none(&mut plan, &mut effects), "before the start");
    plan.start(&mut effects);
    let ready = effects.ready.clone();
    for step in [0, 2, 3, u32::MAX].map(StepId) {
        assert!(!ready.contains(&step) && !plan.complete(step, Ok(Cbor::null()), &mut effects));
    }
    assert_eq!(plan.progress(), Progress { done: 0, total: 2 });
}

#[test]
fn a_second_start_does_nothing() {
    let mut plan = plan(&f("zero"));
    assert_eq!(started(&mut plan).len(), 1);
    assert_eq!(started(&mut plan), []);
}

#[test]
fn revoke_ends_everything_that_has_not_ended() {
    let group = Canvas::group(vec![f("zero"), on_error(s("add", (1, 1)), f("log"))]);
    let mut plan = plan(&on_error(Canvas::chain(vec![group, f("tsum")]), f("log")));
    let ready = started(&mut plan);
    completed(&mut plan, ready[0]);
    plan.revoke();
    plan.validate();
    let error = plan.result().and_then(Result::err).cloned().expect("a revoked job has failed");
    assert_eq!((error.cause, error.function.as_str()), (Cause::Revoked, "tasks.add"));
    assert!(plan.is_finished());
    assert_eq!(plan.progress(), Progress { done: 5, total: 5 });
    let mut effects = Effects::default();
    assert!(!plan.complete(ready[1], Ok(Cbor::encode(&2)), &mut effects));
    assert_eq!(effects, Effects::default());
}

#[test]
fn revoke_keeps_a_result_that_is_known() {
    let mut plan = plan(&link(f("zero"), Canvas::chain(vec![f("log"), f("log")])));
    let ready = started(&mut plan);
    completed(&mut plan, ready[0]);
    plan.revoke();
    plan.validate();
    assert_eq!(plan.result(), Some(Ok(&Cbor::encode(&0))));
    assert!(plan.is_finished());
}

// --- Tasks that replace themselves ---

/// A task that replaces itself by this canvas.
fn becomes(canvas: &Canvas) -> Canvas {
    s("become", [minicbor::bytes::ByteVec::from(Cbor::encode(canvas).into_bytes())])
}

#[test]
fn a_task_that_gives_a_canvas_is_replaced_by_it() {
    assert_eq!(result(becomes(&s("add", (2, 2)))), "4");
    assert_eq!(result(becomes(&Canvas::group(vec![s("add", (2, 2)), f("zero")]))), "[4, 0]");
    assert_eq!(result(becomes(&Canvas::group(vec![]))), "[]");
    assert_eq!(result(becomes(&becomes(&becomes(&f("zero"))))), "0");
}

#[test]
fn a_replaced_step_gives_its_chain_what_the_canvas_comes_to() {
    let two = Canvas::chain(vec![s("add", (1, 1)), s("mul", [10])]);
    assert_eq!(result(Canvas::chain(vec![f("zero"), immutable(becomes(&two)), s("add", [3])])), "23");
    assert_eq!(result(Canvas::chain(vec![s("add", (1, 1)), immutable(becomes(&two))])), "20");
}

#[test]
fn a_replaced_member_gives_its_group_what_the_canvas_comes_to() {
    let header = vec![s("add", (1, 1)), becomes(&Canvas::chain(vec![s("add", (1, 1)), s("mul", [10])])), f("zero")];
    assert_eq!(result(Canvas::group(header.clone())), "[2, 20, 0]");
    assert_eq!(result(Canvas::chord(header, f("tsum"))), "22");
}

#[test]
fn a_replacement_takes_nothing_from_the_parent_of_its_task() {
    let calls = run(Canvas::chain(vec![s("add", (1, 1)), immutable(becomes(&f("zero")))])).calls;
    assert_eq!(calls[2], "zero[]");
}

#[test]
fn replacements_may_go_on_for_long() {
    assert_eq!(result(s("tree", [4])), "24");
    let nested = (0..8).fold(f("zero"), |canvas, _| becomes(&canvas));
    assert_eq!(run(nested).calls.len(), 9);
}

#[test]
fn the_error_of_a_replacement_is_that_of_its_task() {
    let group = Canvas::group(vec![f("zero"), s("fail", ["no"])]);
    let error = error(Canvas::chain(vec![becomes(&group), f("tsum")]));
    assert_eq!((error.function.as_str(), error.text.as_str()), ("tasks.fail", "\"no\""));
    assert_eq!(error.members, [1]);
}

#[test]
fn callbacks_of_a_replaced_task_get_what_the_canvas_comes_to() {
    let calls = run(link(becomes(&s("add", (2, 2))), f("log"))).calls;
    assert_eq!(calls[1..], ["add[2, 2]", "log[4]"]);
    let calls = run(on_error(becomes(&s("fail", ["no"])), f("log"))).calls;
    assert_eq!(calls[2], r#"log[{"task": "tasks.fail", "error": ""no""}]"#);
}

#[test]
fn callbacks_in_a_replacement_run() {
    let calls = run(becomes(&link(s("add", (2, 2)), f("log")))).calls;
    assert_eq!(calls[1..], ["add[2, 2]", "log[4]"]);
}

#[test]
fn the_tasks_of_a_replacement_count() {
    let mut plan = plan(&becomes(&Canvas::group(vec![f("zero"), f("zero")])));
    let (ready, mut effects) = (started(&mut plan), Effects::default());
    assert_eq!(plan.progress(), Progress { done: 0, total: 1 });
    let outcome = work(&plan, ready[0]);
    end(&mut plan, ready[0], outcome.clone(), &mut effects);
    plan.validate();
    assert_eq!(plan.progress(), Progress { done: 1, total: 3 });
    // A second outcome comes too late.
    assert!(!plan.complete(ready[0], outcome, &mut effects));
}

#[test]
fn a_canvas_inside_a_result_is_a_value() {
    let value = Cbor::array([f("zero").to_replacement().as_bytes()].into_iter());
    assert_eq!(Canvas::replacement(&value), None);
}

#[test]
fn a_replacement_that_cannot_be_run_leaves_nothing_behind() {
    let cases = [
        (f("nope"), "there is no function nope"),
        (Canvas::group(vec![f("zero"), s("add", (1, "a"))]), "tasks.add: argument y: expected i64, got str"),
        (Canvas::chain(vec![]), "a chain needs at least one step"),
        (
            set(f("zero"), Options { deadline_ms: Some(9), ..Options::default() }),
            "option deadline is for the whole job: set it on the outermost canvas",
        ),
    ];
    for (canvas, text) in cases {
        let mut plan = plan(&becomes(&f("zero")));
        let (ready, mut effects) = (started(&mut plan), Effects::default());
        let error = plan.replace(ready[0], &canvas, resolver(&functions()), ROOM, &mut effects).unwrap_err();
        assert_eq!(error.to_string(), text);
        plan.validate();
        assert_eq!(effects, Effects::default());
        // The task still waits for its outcome.
        end(&mut plan, ready[0], Ok(f("zero").to_replacement()), &mut effects);
        plan.validate();
        assert_eq!(plan.progress(), Progress { done: 1, total: 2 });
        assert_eq!(plan.call(effects.ready[0]).name, "tasks.zero");
    }
}

#[test]
fn a_task_that_replaces_itself_for_ever_ends_with_a_clear_error() {
    let limits = Limits { steps_max: 100, ..LIMITS };
    let mut plan = try_plan(&f("zero"), &limits).expect("a plan");
    let (mut effects, mut replaced) = (Effects::default(), 0);
    plan.start(&mut effects);
    let error = loop {
        let step = effects.ready.pop().expect("something runs");
        let room = Room { limits: &limits, tasks: 1_000 };
        match plan.replace(step, &f("zero"), resolver(&functions()), room, &mut effects) {
            Ok(()) => replaced += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(replaced, 99);
    assert_eq!(error.to_string(), "the canvas has more than 100 steps; split it into several jobs");
}

#[test]
fn a_replacement_needs_room_at_its_node() {
    let mut plan = plan(&f("zero"));
    let (ready, mut effects) = (started(&mut plan), Effects::default());
    let room = Room { limits: &LIMITS, tasks: 2 };
    let canvas = Canvas::group(vec![f("zero"); 3]);
    let error = plan.replace(ready[0], &canvas, resolver(&functions()), room, &mut effects).unwrap_err();
    assert_eq!(error.to_string(), "the node holds as many tasks as it may: the job cannot grow now");
    plan.validate();
}

#[test]
fn functions_of_a_job_stay_what_they_are_in_a_replacement() {
    let mut plan = plan(&Canvas::group(vec![s("add", (1, 1)), f("zero")]));
    let (ready, mut effects, mut asked) = (started(&mut plan), Effects::default(), vec![]);
    let functions = functions();
    let resolve = |name: &str| {
        asked.push(name.to_owned());
        let mut resolved = resolver(&functions)(name)?;
        resolved.key = 70;
        Ok(resolved)
    };
    let canvas = Canvas::group(vec![s("tasks.add", (2, 2)), s("add", (3, 3)), s("mul", (4, 4))]);
    plan.replace(ready[1], &canvas, resolve, ROOM, &mut effects).expect("replaced");
    assert_eq!(asked, ["mul"]);
    let keys: Vec<u32> = effects.ready.iter().map(|step| plan.call(*step).key).collect();
    assert_eq!(keys, [0, 0, 70]);
}

#[test]
fn the_same_replacements_in_the_same_order_give_the_same_steps() {
    let replay = |_| {
        let mut plan = plan(&Canvas::group(vec![f("zero"), f("zero")]));
        let (ready, mut effects) = (started(&mut plan), Effects::default());
        for step in [ready[1], ready[0]] {
            end(&mut plan, step, Ok(Canvas::group(vec![f("zero"), s("add", (1, 2))]).to_replacement()), &mut effects);
        }
        effects.ready.iter().map(|step| (step.0, described(&plan, *step))).collect::<Vec<_>>()
    };
    assert_eq!(replay(0), replay(1));
    assert_eq!(replay(0)[0].0, 4);
}

#[test]
fn a_replacement_inherits_the_priority_of_its_task_and_nothing_else() {
    let options = Options { retries: Some(3), countdown_ms: Some(9), on: vec!["led".into()], ..priority(7) };
    let mut plan = plan(&set(f("zero"), options));
    let (ready, mut effects) = (started(&mut plan), Effects::default());
    let canvas = Canvas::group(vec![f("zero"), set(f("zero"), priority(2))]);
    end(&mut plan, ready[0], Ok(canvas.to_replacement()), &mut effects);
    let options: Vec<Options> = effects.ready.iter().map(|step| plan.call(*step).options.clone()).collect();
    assert_eq!(options, [priority(7), priority(2)]);
}

#[test]
fn revoking_a_job_ends_its_replacements() {
    let mut plan = plan(&Canvas::chain(vec![f("zero"), f("log")]));
    let (ready, mut effects) = (started(&mut plan), Effects::default());
    end(&mut plan, ready[0], Ok(Canvas::group(vec![f("zero"); 2]).to_replacement()), &mut effects);
    let open = effects.ready[0];
    plan.revoke();
    plan.validate();
    assert!(plan.is_finished());
    assert_eq!(plan.progress(), Progress { done: 4, total: 4 });
    assert!(!plan.complete(open, Ok(Cbor::null()), &mut effects));
}

// --- each ---

fn each(canvas: Canvas) -> Canvas {
    set(canvas, Options { each: Some(true), ..Options::default() })
}

fn each_partial(canvas: Canvas) -> Canvas {
    set(canvas, Options { each: Some(true), partial: Some(true), ..Options::default() })
}

#[test]
fn each_runs_on_each_node_and_gives_a_map_in_the_order_of_names() {
    let run = run(each(s("add", (1, 2))));
    assert_eq!(run.result.as_deref(), Ok(r#"{"pi-1": 3, "pi-2": 3, "pi-3": 3}"#));
    assert_eq!(run.calls, ["add[1, 2]@pi-1", "add[1, 2]@pi-2", "add[1, 2]@pi-3"]);
}

#[test]
fn each_takes_the_result_before_it_and_hands_on_its_map() {
    let run = run(Canvas::chain(vec![s("add", (1, 1)), each(s("add", [5])), f("identity")]));
    assert_eq!(run.calls[1], "add[2, 5]@pi-1");
    assert_eq!(run.calls[4], r#"identity[{"pi-1": 7, "pi-2": 7, "pi-3": 7}]"#);
}

#[test]
fn each_on_a_form_is_a_default_for_its_tasks() {
    let two = result(each(Canvas::group(vec![s("add", (1, 1)), set(f("zero"), not_each())])));
    assert_eq!(two, r#"[{"pi-1": 2, "pi-2": 2, "pi-3": 2}, 0]"#);
    assert_eq!(result(each(map("identity", [7]))), r#"[{"pi-1": 7, "pi-2": 7, "pi-3": 7}]"#);
    assert_eq!(result(Canvas::chord(vec![each(f("zero"))], f("identity"))), r#"[{"pi-1": 0, "pi-2": 0, "pi-3": 0}]"#);
}

fn not_each() -> Options {
    Options { each: Some(false), ..Options::default() }
}

#[test]
fn a_run_of_each_has_the_options_of_its_task() {
    let options = Options { retries: Some(3), each: Some(true), on: vec!["led".into()], ..priority(7) };
    let mut plan = plan(&set(f("zero"), options));
    let mut effects = Effects::default();
    plan.start(&mut effects);
    plan.run_on_each(effects.each[0], &nodes(&["pi-1"]), ROOM, &mut effects);
    let expected = Options { retries: Some(3), on: vec!["=pi-1".into()], ..priority(7) };
    assert_eq!(*plan.call(effects.ready[0]).options, expected);
}

#[test]
fn each_without_nodes_fails_unless_partial() {
    let come_to = |canvas: &Canvas| {
        let mut plan = plan(canvas);
        let mut effects = Effects::default();
        plan.start(&mut effects);
        plan.run_on_each(effects.each[0], &[], ROOM, &mut effects);
        plan.validate();
        assert!(plan.is_finished());
        plan.result().map(|result| result.map(Cbor::to_string).map_err(TaskError::to_string))
    };
    let text = "tasks.zero: no live node runs it (on: any); each needs one, or partial=True (step 0)";
    assert_eq!(come_to(&each(f("zero"))), Some(Err(text.into())));
    assert_eq!(come_to(&each_partial(f("zero"))), Some(Ok("{}".into())));
}

#[test]
fn each_fails_after_all_have_ended_with_the_first_node_that_failed() {
    let mut plan = plan(&each(f("zero")));
    let mut effects = Effects::default();
    plan.start(&mut effects);
    plan.run_on_each(effects.each[0], &nodes(&NODES), ROOM, &mut effects);
    let runs = std::mem::take(&mut effects.ready);
    for (index, outcome) in [(2, Err("c")), (1, Err("b")), (0, Ok(()))] {
        assert_eq!(plan.result(), None);
        let outcome = outcome.map(|()| Cbor::null()).map_err(|text| failure("tasks.zero", text));
        assert!(plan.complete(runs[index], outcome, &mut effects));
        plan.validate();
    }
    let error = plan.result().and_then(Result::err).expect("failed");
    assert_eq!((error.text.as_str(), error.members.len()), ("on pi-2: b", 0));
}

#[test]
fn a_node_that_fails_is_left_out_with_partial() {
    assert_eq!(result(each_partial(s("not_on", ["pi-2"]))), r#"{"pi-1": "pi-2", "pi-3": "pi-2"}"#);
    assert_eq!(result(each_partial(s("fail", ["no"]))), "{}");
    assert_eq!(error(each(s("not_on", ["pi-2"]))).text, "on pi-2: not here");
}

#[test]
fn a_run_of_each_may_replace_itself() {
    assert_eq!(result(each(becomes(&s("add", (2, 2))))), r#"{"pi-1": 4, "pi-2": 4, "pi-3": 4}"#);
}

#[test]
fn callbacks_of_each_get_the_map_once() {
    let calls = run(link(each(f("zero")), f("log"))).calls;
    assert_eq!(calls[3..], [r#"log[{"pi-1": 0, "pi-2": 0, "pi-3": 0}]"#]);
}

#[test]
fn the_runs_of_each_count_instead_of_the_task() {
    let mut plan = plan(&Canvas::group(vec![each(f("zero")), f("zero")]));
    let mut effects = Effects::default();
    plan.start(&mut effects);
    assert_eq!(plan.progress(), Progress { done: 0, total: 2 });
    let step = effects.each[0];
    plan.run_on_each(step, &nodes(&NODES), ROOM, &mut effects);
    plan.validate();
    assert_eq!(plan.progress(), Progress { done: 0, total: 4 });
    plan.run_on_each(step, &nodes(&["other"]), ROOM, &mut effects);
    assert_eq!(effects.ready.len(), 4, "a task gets its nodes once");
    plan.revoke();
    plan.validate();
    assert_eq!(plan.progress(), Progress { done: 4, total: 4 });
}

#[test]
fn runs_of_each_need_room() {
    let text = |limits: &Limits, tasks| {
        let mut plan = plan(&each(f("zero")));
        let mut effects = Effects::default();
        plan.start(&mut effects);
        plan.run_on_each(effects.each[0], &nodes(&NODES), Room { limits, tasks }, &mut effects);
        plan.validate();
        plan.result().and_then(Result::err).map(|error| error.text.clone())
    };
    assert_eq!(text(&LIMITS, 3), None);
    let no_room = "the node holds as many tasks as it may: the job cannot grow now";
    assert_eq!(text(&LIMITS, 2).as_deref(), Some(no_room));
    let few = Limits { steps_max: 4, ..LIMITS };
    let too_many = "the canvas has more than 4 steps; split it into several jobs";
    assert_eq!(text(&few, 3).as_deref(), Some(too_many));
    assert_eq!(text(&Limits { steps_max: 5, ..LIMITS }, 3), None);
}

#[test]
fn a_map_over_the_limit_fails() {
    let limits = Limits { result_bytes_max: 20, ..LIMITS };
    let mut plan = try_plan(&each(f("zero")), &limits).expect("a plan");
    let mut effects = Effects::default();
    plan.start(&mut effects);
    plan.run_on_each(effects.each[0], &nodes(&NODES), ROOM, &mut effects);
    for run in std::mem::take(&mut effects.ready) {
        plan.complete(run, Ok(Cbor::null()), &mut effects);
    }
    let error = plan.result().and_then(Result::err).expect("failed");
    assert_eq!(error.text, "the map of 3 results has 21 bytes, the limit is 20");
}

#[test]
fn each_is_not_for_chunks() {
    let text = "option each is not for chunks: a bin runs on one node; use map or starmap";
    assert_eq!(refusal(each(chunks("add", [(1, 1)], Split::Bins(1)))), text);
    assert_eq!(refusal(each(Canvas::group(vec![chunks("add", [(1, 1)], Split::Bins(1))]))), text);
}

#[test]
fn partial_goes_with_each() {
    let partial = || Options { partial: Some(true), ..Options::default() };
    assert_eq!(refusal(set(f("zero"), partial())), "option partial goes with each=True");
    assert_eq!(refusal(set(map("identity", [1]), partial())), "option partial goes with each=True");
    // As a default it applies to those tasks that run on each node.
    assert_eq!(result(set(Canvas::group(vec![each(s("fail", ["no"])), f("zero")]), partial())), "[{}, 0]");
}

// --- deadline ---

fn deadline(ms: u64) -> Options {
    Options { deadline_ms: Some(ms), ..Options::default() }
}

#[test]
fn deadline_is_of_the_whole_job() {
    assert_eq!(plan(&set(f("zero"), deadline(9))).deadline_ms(), Some(9));
    let canvas = set(Canvas::group(vec![f("zero")]), deadline(9));
    assert_eq!(plan(&canvas).deadline_ms(), Some(9));
    assert_eq!(options_of(&canvas), [Options::default()]);
    assert_eq!(plan(&f("zero")).deadline_ms(), None);
}

#[test]
fn a_deadline_elsewhere_is_refused() {
    let text = "option deadline is for the whole job: set it on the outermost canvas";
    assert_eq!(refusal(Canvas::group(vec![set(f("zero"), deadline(9))])), text);
    assert_eq!(refusal(link(f("zero"), set(f("log"), deadline(9)))), text);
    assert_eq!(refusal(Canvas::chord(vec![], set(f("tsum"), deadline(9)))), text);
    assert_eq!(refusal(set(f("zero"), deadline(0))), "deadline is 0 ms, must be 1 to 10000000000000 ms");
}

#[test]
fn a_missed_deadline_ends_the_job() {
    let mut plan = plan(&set(Canvas::chain(vec![f("zero"), s("add", [1])]), deadline(900)));
    let ready = started(&mut plan);
    completed(&mut plan, ready[0]);
    plan.miss_deadline(None);
    plan.validate();
    let error = plan.result().and_then(Result::err).expect("failed");
    assert_eq!((error.cause, error.function.as_str()), (Cause::TimedOut, "tasks.add"));
    assert_eq!(error.text, "the job took longer than its deadline of 900 ms");
    assert!(plan.is_finished());
}

// --- Steps by path ---

/// `name state members outcome`.
fn seen(plan: &Plan, path: &[u32]) -> String {
    let Some(step) = plan.step_at(path) else { return "none".into() };
    let outcome = match &step.outcome {
        None => "-".into(),
        Some(Ok(value)) => value.to_string(),
        Some(Err(error)) => format!("{:?} {:?}", error.text, error.members),
    };
    format!("{} {:?} {} {outcome}", step.name, step.state, step.members)
}

#[test]
fn steps_are_found_by_their_path() {
    let mut plan = plan(&Canvas::chain(vec![Canvas::group(vec![s("add", (1, 1)), s("add", (2, 2))]), f("tsum")]));
    assert_eq!(seen(&plan, &[]), "chain Waiting 2 -");
    assert_eq!(seen(&plan, &[0]), "group Waiting 2 -");
    let ready = started(&mut plan);
    completed(&mut plan, ready[1]);
    assert_eq!(seen(&plan, &[0]), "group Running 2 -");
    assert_eq!(seen(&plan, &[0, 0]), "tasks.add Running 0 -");
    assert_eq!(seen(&plan, &[0, 1]), "tasks.add Succeeded 0 4");
    assert_eq!(seen(&plan, &[1]), "tasks.tsum Waiting 0 -");
    for path in [&[2][..], &[0, 2], &[1, 0], &[0, 0, 0], &[u32::MAX]] {
        assert_eq!(seen(&plan, path), "none");
    }
}

fn done(canvas: &Canvas) -> Plan {
    let mut plan = plan(canvas);
    let mut effects = Effects::default();
    plan.start(&mut effects);
    loop {
        for step in std::mem::take(&mut effects.each) {
            plan.run_on_each(step, &nodes(&NODES), ROOM, &mut effects);
        }
        let Some(step) = effects.ready.pop() else { return plan };
        let outcome = work(&plan, step);
        end(&mut plan, step, outcome, &mut effects);
    }
}

#[test]
fn results_that_have_gone_into_a_list_are_still_found() {
    let inner = Canvas::group(vec![s("add", (1, 1)), s("identity", ["x"])]);
    let plan = done(&Canvas::group(vec![f("zero"), inner, Canvas::chain(vec![f("zero"), s("add", [4])])]));
    assert_eq!(seen(&plan, &[]), r#"group Succeeded 3 [0, [2, "x"], 4]"#);
    assert_eq!(seen(&plan, &[0]), "tasks.zero Succeeded 0 0");
    assert_eq!(seen(&plan, &[1]), r#"group Succeeded 2 [2, "x"]"#);
    assert_eq!(seen(&plan, &[1, 1]), r#"tasks.identity Succeeded 0 "x""#);
    assert_eq!(seen(&plan, &[2]), "chain Succeeded 2 4");
    assert_eq!(seen(&plan, &[2, 0]), "tasks.zero Succeeded 0 0");
    assert_eq!(seen(&plan, &[2, 1]), "tasks.add Succeeded 0 4");
}

#[test]
fn intermediate_results_of_a_chain_are_kept() {
    let plan = done(&Canvas::chain(vec![s("add", (1, 1)), s("mul", [5]), Canvas::group(vec![]), f("tsum")]));
    assert_eq!(
        [0, 1, 2].map(|i| seen(&plan, &[i])),
        ["tasks.add Succeeded 0 2", "tasks.mul Succeeded 0 10", "group Succeeded 0 []",]
    );
}

#[test]
fn a_failed_group_shows_which_members_failed() {
    let members = vec![f("zero"), s("fail", ["a"]), s("fail", ["b"])];
    let plan = done(&Canvas::chain(vec![Canvas::group(members), Canvas::group(vec![f("log")])]));
    assert_eq!(seen(&plan, &[0]), r#"group Failed 3 "\"a\"" [1]"#);
    assert_eq!(seen(&plan, &[0, 0]), "tasks.zero Succeeded 0 -");
    assert_eq!(seen(&plan, &[0, 1]), r#"tasks.fail Failed 0 "\"a\"" []"#);
    assert_eq!(seen(&plan, &[0, 2]), "tasks.fail Failed 0 -");
    assert_eq!(seen(&plan, &[1]), "group Skipped 1 -");
    assert_eq!(seen(&plan, &[1, 0]), "tasks.log Skipped 0 -");
    assert_eq!(seen(&plan, &[]), r#"chain Failed 2 "\"a\"" [1]"#);
}

#[test]
fn members_of_a_replacement_are_those_of_its_task() {
    let plan = done(&Canvas::group(vec![becomes(&Canvas::group(vec![f("zero"), s("add", (1, 2))]))]));
    assert_eq!(seen(&plan, &[0]), "tasks.become Succeeded 2 [0, 3]");
    assert_eq!(seen(&plan, &[0, 1]), "tasks.add Succeeded 0 3");
}

#[test]
fn members_of_each_are_its_runs_in_the_order_of_names() {
    let plan = done(&Canvas::group(vec![each_partial(s("not_on", ["pi-2"]))]));
    assert_eq!(seen(&plan, &[0]), r#"tasks.not_on Succeeded 3 {"pi-1": "pi-2", "pi-3": "pi-2"}"#);
    assert_eq!(seen(&plan, &[0, 0]), r#"tasks.not_on Succeeded 0 "pi-2""#);
    assert_eq!(seen(&plan, &[0, 1]), "tasks.not_on Failed 0 -");
    assert_eq!(seen(&plan, &[0, 2]), r#"tasks.not_on Succeeded 0 "pi-2""#);
}

#[test]
fn steps_of_a_revoked_job_are_skipped() {
    let mut plan = plan(&Canvas::chain(vec![Canvas::group(vec![f("zero"), f("zero")]), f("tsum")]));
    let ready = started(&mut plan);
    completed(&mut plan, ready[0]);
    plan.revoke();
    assert_eq!(seen(&plan, &[]), r#"chain Failed 2 "the job was revoked" []"#);
    assert_eq!(plan.step_at(&[0]).map(|step| step.state), Some(StepState::Skipped));
    assert_eq!(plan.step_at(&[0, 1]).map(|step| step.state), Some(StepState::Skipped));
}
