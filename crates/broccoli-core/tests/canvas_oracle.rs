//! The plan, compared with an independent evaluation of the same canvas.
//!
//! The oracle below is a plain recursive interpreter, with its own values and its own binding of arguments. Each case
//! is a random canvas that runs through the plan, with completions in random order. Plan and oracle must agree on the
//! result, on every call with its arguments and options, on the callbacks that failed, and on the number of tasks.
//!
//! `ORACLE_CASES=n` sets the number of cases, and `ORACLE_SEED=n` the first seed. `ORACLE_SEED=<seed of a failure>
//! ORACLE_CASES=1` repeats a failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::canvas::{Effects, Limits, Mode, Plan, Resolved, Room, StepId, lower, pinned_to};
use broccoli_proto::{Canvas, Cause, Cbor, Form, NodeId, Options, Split, Task, TaskError};
use broccoli_sim::canvases::{Calls, Generator, Rng};
use broccoli_sim::oracle::{Failure, PARAMETERS, VALUE_LEN_MAX, Value, falsy, joined, list, padded, split_into};

const CASES: u64 = 20_000;

fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) => true,
        Value::Str(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        _ => false,
    }
}

// --- The functions, for the oracle and for the worker ---

const FUNCTIONS: [&str; 7] = ["list", "first", "falsy", "risky", "fail", "number", "become"];

/// The return value of a function: a value, or a canvas that replaces its task.
enum Given {
    Value(Value),
    Canvas(Box<Canvas>),
}

/// `node` is the node of a run, if the task runs on each node.
fn apply(function: &str, args: &[Value], node: &str) -> Result<Given, String> {
    assert_eq!(args.len(), PARAMETERS.len(), "{function} gets all its arguments");
    let text = format!("{args:?}");
    let hashed = format!("{text}{node}");
    let hash = hashed.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let number = Value::Int(i64::from(hash % 1000));
    let value = match function {
        "w.list" if text.len() <= VALUE_LEN_MAX => Value::List(args.to_vec()),
        "w.list" | "w.number" => number,
        "w.first" => args[0].clone(),
        "w.falsy" => falsy(hash),
        "w.risky" if !hash.is_multiple_of(6) => args[1].clone(),
        "w.risky" | "w.fail" => return Err(format!("{function} refuses {hash:x}")),
        "w.become" => return Ok(Given::Canvas(Box::new(replacement(hash)))),
        other => panic!("there is no {other}"),
    };
    Ok(Given::Value(value))
}

/// A small canvas for each number. Few of them contain a task that replaces itself again, so the replacement ends.
fn replacement(hash: u32) -> Canvas {
    let value = |n: u32| Value::List(vec![Value::Int(i64::from(hash / 7 % n))]);
    let task = |function: &str| Canvas::task(function, value(1_000).encode());
    let mut canvas = match hash % 7 {
        0 => task("become"),
        1 => Canvas::group(vec![]),
        2 => Canvas::chain(vec![task("list"), Canvas::task("number", Cbor::empty_array())]),
        3 => Canvas::chord(vec![task("number"), task("risky")], Canvas::task("list", Cbor::empty_array())),
        4 => Canvas::group(vec![task("become"), task("first")]),
        5 => task("fail"),
        _ => task("falsy"),
    };
    let bits = hash / 97;
    if bits.is_multiple_of(5) {
        canvas.link.push(task("number"));
        canvas.on_error.push(task("fail"));
    }
    if bits.is_multiple_of(4) {
        canvas.options.priority = Some((bits % 10) as u8);
    }
    if bits.is_multiple_of(6) && hash % 7 > 4 {
        canvas.options.each = Some(true);
        canvas.options.on = vec![format!("room={}", bits % 10)];
    }
    canvas
}

/// The nodes of a task that runs on each node, in the order of names.
fn nodes(on: &str) -> Vec<String> {
    let count = on.strip_prefix("room=").map_or(2, |n| n.parse::<usize>().expect("a number") % 4);
    (1..=count).map(|n| format!("pi-{n}")).collect()
}

// --- The oracle ---

/// The outcome of a run. Calls and failed callbacks are sorted, because their order is free.
#[derive(Debug, PartialEq)]
struct Report {
    result: Result<Value, Failure>,
    calls: Vec<String>,
    failed_callbacks: Vec<String>,
    tasks: u32,
}

/// The options that the oracle knows, by name.
type Chosen = BTreeMap<&'static str, String>;

#[derive(Default)]
struct Oracle {
    calls: Vec<String>,
    failed_callbacks: Vec<String>,
    tasks: u32,
}

impl Oracle {
    fn report(canvas: &Canvas) -> Report {
        let mut oracle = Oracle { tasks: tasks(canvas), ..Oracle::default() };
        let result = oracle.eval(canvas, None, &Chosen::new());
        oracle.calls.sort();
        oracle.failed_callbacks.sort();
        let Oracle { calls, failed_callbacks, tasks } = oracle;
        Report { result, calls, failed_callbacks, tasks }
    }

    fn eval(&mut self, canvas: &Canvas, input: Option<&Value>, around: &Chosen) -> Result<Value, Failure> {
        let chosen = chosen(&canvas.options, around);
        let result = self.form(&canvas.form, input, &chosen);
        let (callbacks, given) = match &result {
            Ok(value) => (&canvas.link, value.clone()),
            Err(failure) => {
                let pair = |key: &str, text: &str| (key.to_owned(), Value::Str(text.to_owned()));
                let map = vec![pair("task", &failure.function), pair("error", &failure.text)];
                (&canvas.on_error, Value::Map(map))
            }
        };
        for callback in callbacks {
            if let Err(failure) = self.eval(callback, Some(&given), &Chosen::new()) {
                self.failed_callbacks.push(format!("{failure:?}"));
            }
        }
        result
    }

    fn form(&mut self, form: &Form, input: Option<&Value>, chosen: &Chosen) -> Result<Value, Failure> {
        match form {
            Form::Task(task) => {
                let mut args: Vec<Value> = input.filter(|_| !task.immutable).into_iter().cloned().collect();
                args.extend(list(&task.args));
                self.call(&task.function, args, &task.kwargs, chosen)
            }
            Form::Chain(steps) => {
                let mut value = input.cloned();
                for step in steps {
                    value = Some(self.eval(step, value.as_ref(), chosen)?);
                }
                Ok(value.expect("a chain has steps"))
            }
            Form::Group(members) => self.all(members, input, chosen),
            Form::Chord { header, body } => {
                let list = self.all(header, input, chosen)?;
                self.eval(body, Some(&list), chosen)
            }
            Form::Map { function, items } => {
                let calls = list(items).into_iter().map(|item| vec![item]);
                self.each(function, calls, chosen)
            }
            Form::Starmap { function, items } => {
                let calls = list(items).into_iter().map(|item| list(&item.encode()));
                self.each(function, calls, chosen)
            }
            Form::Chunks { function, items, split } => {
                let bins: Vec<_> =
                    split_into(&list(items), *split).iter().map(|bin| self.bin(function, bin, chosen)).collect();
                joined(bins)
            }
        }
    }

    fn all(&mut self, members: &[Canvas], input: Option<&Value>, chosen: &Chosen) -> Result<Value, Failure> {
        joined(members.iter().map(|member| self.eval(member, input, chosen)).collect())
    }

    fn each(
        &mut self,
        function: &str,
        calls: impl Iterator<Item = Vec<Value>>,
        chosen: &Chosen,
    ) -> Result<Value, Failure> {
        joined(calls.map(|args| self.call(function, args, &[], chosen)).collect())
    }

    fn call(
        &mut self,
        function: &str,
        args: Vec<Value>,
        named: &[(String, Cbor)],
        chosen: &Chosen,
    ) -> Result<Value, Failure> {
        let (name, args) = (format!("w.{function}"), padded(args, named));
        if chosen.get("each").is_some_and(|each| each == "true") {
            return self.call_on_each(&name, &args, chosen);
        }
        self.call_here(&name, &args, chosen, "")
    }

    fn call_here(&mut self, name: &str, args: &[Value], chosen: &Chosen, node: &str) -> Result<Value, Failure> {
        self.calls.push(call_text(name, Mode::Single, &Value::List(args.to_vec()), chosen));
        match apply(name, args, node) {
            Ok(Given::Value(value)) => Ok(value),
            Ok(Given::Canvas(canvas)) => {
                self.tasks += tasks(&canvas);
                let inherited = chosen.get_key_value("priority").map(|(key, value)| (*key, value.clone()));
                self.eval(&canvas, None, &inherited.into_iter().collect())
            }
            Err(text) => failing(name, Err(text)),
        }
    }

    fn call_on_each(&mut self, name: &str, args: &[Value], chosen: &Chosen) -> Result<Value, Failure> {
        let on = chosen.get("on").cloned().unwrap_or("any".into());
        let (nodes, is_partial) = (nodes(&on), chosen.get("partial").is_some_and(|partial| partial == "true"));
        if nodes.is_empty() {
            let text = format!("no live node runs it (on: {on}); each needs one, or partial=True");
            return if is_partial { Ok(Value::Map(vec![])) } else { failing(name, Err(text)) };
        }
        self.tasks += nodes.len() as u32 - 1;
        let (mut map, mut first_failure) = (Vec::new(), None);
        for node in nodes {
            let mut here = chosen.clone();
            here.retain(|option, _| !["each", "partial"].contains(option));
            here.insert("on", format!("={node}"));
            match self.call_here(name, args, &here, &node) {
                Ok(value) => map.push((node, value)),
                Err(failure) if first_failure.is_none() => {
                    first_failure = Some(Failure { text: format!("on {node}: {}", failure.text), ..failure });
                }
                Err(_) => {}
            }
        }
        first_failure.filter(|_| !is_partial).map_or(Ok(Value::Map(map)), Err)
    }

    fn bin(&mut self, function: &str, items: &[Value], chosen: &Chosen) -> Result<Value, Failure> {
        if items.is_empty() {
            return Ok(Value::List(Vec::new()));
        }
        let name = format!("w.{function}");
        let calls: Vec<_> = items.iter().map(|item| padded(list(&item.encode()), &[])).collect();
        let args = Value::List(calls.iter().cloned().map(Value::List).collect());
        self.calls.push(call_text(&name, Mode::Bin, &args, chosen));
        let results: Result<Vec<_>, _> = calls.iter().map(|args| apply_in_bin(&name, args)).collect();
        failing(&name, results.map(Value::List))
    }
}

/// A bin is one task, so the results of its calls are values, whatever they are.
fn apply_in_bin(name: &str, args: &[Value]) -> Result<Value, String> {
    match apply(name, args, "")? {
        Given::Value(value) => Ok(value),
        Given::Canvas(_) => Err("a canvas in a bin".into()),
    }
}

fn failing(name: &str, result: Result<Value, String>) -> Result<Value, Failure> {
    result.map_err(|text| Failure { function: name.into(), text, members: Vec::new() })
}

fn chosen(own: &Options, around: &Chosen) -> Chosen {
    let mut merged = around.clone();
    let on = (!own.on.is_empty()).then(|| own.on.join(" "));
    let set = [
        ("retries", own.retries.map(|n| n.to_string())),
        ("timeout", own.timeout_ms.map(|n| n.to_string())),
        ("priority", own.priority.map(|n| n.to_string())),
        ("countdown", own.countdown_ms.map(|n| n.to_string())),
        ("on", on),
        ("each", own.each.map(|each| each.to_string())),
        ("partial", own.partial.map(|partial| partial.to_string())),
    ];
    merged.extend(set.into_iter().filter_map(|(name, value)| Some((name, value?))));
    merged
}

/// Number of tasks in a canvas, whether they will run or not.
fn tasks(canvas: &Canvas) -> u32 {
    let own = match &canvas.form {
        Form::Task(_) => 1,
        Form::Chain(members) | Form::Group(members) => members.iter().map(tasks).sum(),
        Form::Chord { header, body } => header.iter().map(tasks).sum::<u32>() + tasks(body),
        Form::Map { items, .. } | Form::Starmap { items, .. } => list(items).len() as u32,
        Form::Chunks { items, split, .. } => {
            split_into(&list(items), *split).iter().filter(|bin| !bin.is_empty()).count() as u32
        }
    };
    own + canvas.link.iter().chain(&canvas.on_error).map(tasks).sum::<u32>()
}

fn call_text(name: &str, mode: Mode, args: &Value, chosen: &Chosen) -> String {
    format!("{name} {mode:?} {args:?} {chosen:?}")
}

// --- The plan, run by a worker that takes ready tasks in random order ---

const LIMITS: Limits = Limits { steps_max: 10_000, depth_max: 32, args_bytes_max: 1 << 20, result_bytes_max: 1 << 20 };

const ROOM: Room<'_> = Room { limits: &LIMITS, tasks: 10_000 };

fn any_function() -> Function {
    let any = || Type::Optional(Box::new(Type::Any));
    let args = PARAMETERS.map(|name| Arg { name: name.into(), ty: any() }).to_vec();
    Function { name: "any".into(), args, ret: Type::Any, doc: String::new() }
}

fn resolver<'f>(function: &'f Function) -> impl Fn(&str) -> Result<Resolved<'f>, String> {
    move |name| {
        assert!(FUNCTIONS.contains(&name), "a name of the canvas");
        Ok(Resolved { name: format!("w.{name}"), function, key: 0 })
    }
}

fn planned(canvas: &Canvas) -> Plan {
    lower(canvas, resolver(&any_function()), &LIMITS).unwrap_or_else(|error| panic!("{error}"))
}

fn run(canvas: &Canvas, rng: &mut Rng) -> Report {
    let (mut plan, mut effects, mut calls) = (planned(canvas), Effects::default(), Vec::new());
    plan.start(&mut effects);
    plan.validate();
    let (mut ready, mut each) = (vec![], vec![]);
    loop {
        ready.append(&mut effects.ready);
        each.append(&mut effects.each);
        if !each.is_empty() && (ready.is_empty() || rng.one_in(2)) {
            let step = each.swap_remove(rng.below(each.len()));
            expand(&mut plan, step, &mut effects);
            plan.validate();
            continue;
        }
        if ready.is_empty() {
            break;
        }
        let step = ready.swap_remove(rng.below(ready.len()));
        assert!(!plan.is_finished(), "a finished plan has nothing ready");
        let (call, outcome) = work(&plan, step);
        calls.push(call);
        end(&mut plan, step, outcome.clone(), &mut effects);
        plan.validate();
        if rng.one_in(8) {
            assert!(!plan.complete(step, Ok(Cbor::null()), &mut effects), "a second outcome does not count");
        }
    }
    assert!(plan.is_finished(), "nothing is ready, so all is done");
    calls.sort();
    let mut failed_callbacks: Vec<_> =
        effects.failed_callbacks.iter().map(|error| format!("{:?}", failure(error))).collect();
    failed_callbacks.sort();
    let progress = plan.progress();
    assert_eq!(progress.done, progress.total, "progress adds up");
    Report { result: outcome_of(&plan).expect("a result"), calls, failed_callbacks, tasks: progress.total }
}

/// Chooses the nodes of a task that runs on each node, not in the order of names.
fn expand(plan: &mut Plan, step: StepId, effects: &mut Effects) {
    let nodes = nodes(&plan.call(step).options.on.join(" "));
    let nodes: Vec<NodeId> = nodes.iter().rev().map(|name| name.parse().expect("a name")).collect();
    plan.run_on_each(step, &nodes, ROOM, effects);
}

/// Handles an outcome like an origin.
fn end(plan: &mut Plan, step: StepId, outcome: Result<Cbor, TaskError>, effects: &mut Effects) {
    match outcome.as_ref().ok().and_then(Canvas::replacement) {
        None => assert!(plan.complete(step, outcome, effects), "the first outcome counts"),
        Some(canvas) => {
            let canvas = canvas.expect("a canvas");
            plan.replace(step, &canvas, resolver(&any_function()), ROOM, effects).expect("a canvas that can be run");
        }
    }
}

/// Revokes a run somewhere in the middle.
fn run_revoked(canvas: &Canvas, rng: &mut Rng) {
    let (mut plan, mut effects) = (planned(canvas), Effects::default());
    plan.start(&mut effects);
    for _ in 0..rng.below(9) {
        if let Some(step) = effects.each.pop() {
            expand(&mut plan, step, &mut effects);
        } else if !effects.ready.is_empty() {
            let step = effects.ready.swap_remove(rng.below(effects.ready.len()));
            let (_, outcome) = work(&plan, step);
            end(&mut plan, step, outcome, &mut effects);
        }
    }
    let known = outcome_of(&plan);
    plan.revoke();
    plan.validate();
    assert!(plan.is_finished(), "a revoked plan is finished");
    match (known, plan.result()) {
        (Some(known), _) => assert_eq!(outcome_of(&plan), Some(known), "a known result stays"),
        (None, Some(Err(error))) => assert_eq!(error.cause, Cause::Revoked),
        (None, other) => panic!("revoked without a result, but got {other:?}"),
    }
    let open = std::mem::take(&mut effects);
    for step in open.ready {
        assert!(!plan.complete(step, Ok(Cbor::null()), &mut effects), "too late");
    }
    open.each.into_iter().for_each(|step| expand(&mut plan, step, &mut effects));
    assert_eq!(effects, Effects::default(), "nothing follows a revocation");
}

fn work(plan: &Plan, step: StepId) -> (String, Result<Cbor, TaskError>) {
    let call = plan.call(step);
    let args = Value::decode(&plan.args(step));
    let text = call_text(call.name, call.mode, &args, &chosen(call.options, &Chosen::new()));
    let Value::List(args) = args else { panic!("arguments are a list") };
    let result = match call.mode {
        Mode::Single => apply(call.name, &args, pinned_to(&call.options.on).unwrap_or_default()),
        Mode::Bin => {
            let results = args.iter().map(|item| apply_in_bin(call.name, &list(&item.encode())));
            results.collect::<Result<Vec<_>, _>>().map(|values| Given::Value(Value::List(values)))
        }
    };
    let error = |text| TaskError {
        function: call.name.into(),
        task: step.0,
        node: None,
        attempt: 1,
        cause: Cause::Returned,
        text,
        members: Vec::new(),
    };
    let given = |given| match given {
        Given::Value(value) => value.encode(),
        Given::Canvas(canvas) => canvas.to_replacement(),
    };
    (text, result.map(given).map_err(error))
}

fn outcome_of(plan: &Plan) -> Option<Result<Value, Failure>> {
    plan.result().map(|result| result.map(|value| Value::decode(value.as_bytes())).map_err(failure))
}

fn failure(error: &TaskError) -> Failure {
    let TaskError { function, text, members, .. } = error.clone();
    Failure { function, text, members }
}

// --- Random canvases ---

/// The calls of a case.
struct CaseCalls;

impl Calls for CaseCalls {
    fn function(&mut self, rng: &mut Rng) -> String {
        // Failures are rare. Otherwise hardly any canvas would succeed.
        let name = *rng.pick(&FUNCTIONS);
        if name == "fail" && !rng.one_in(3) { "list".into() } else { name.into() }
    }

    fn kwargs(&mut self, rng: &mut Rng, _: &str, first_free: usize) -> Vec<(String, Cbor)> {
        let Some(names) = PARAMETERS.get(first_free..).filter(|names| !names.is_empty() && rng.one_in(3)) else {
            return Vec::new();
        };
        vec![((*rng.pick(names)).to_owned(), self.value(rng).encode())]
    }

    fn value(&mut self, rng: &mut Rng) -> Value {
        match rng.below(4) {
            0 => falsy(rng.bits() as u32),
            1 => Value::Str("text".into()),
            2 => Value::List(vec![Value::Int(rng.below(9) as i64)]),
            _ => Value::Int(rng.bits() as i64 >> 31),
        }
    }

    fn options(&mut self, rng: &mut Rng, form: &Form) -> Options {
        let mut options = Options::default();
        if rng.one_in(5) {
            let n = rng.below(10);
            match rng.below(5) {
                0 => options.retries = Some(n as u32),
                1 => options.timeout_ms = Some(n as u64 + 1),
                2 => options.priority = Some(n as u8),
                3 => options.countdown_ms = Some(n as u64),
                _ => options.on = vec![format!("room={n}")],
            }
        }
        match form {
            Form::Task(_) | Form::Map { .. } | Form::Starmap { .. } if rng.one_in(8) => {
                options.each = Some(true);
                options.partial = [None, Some(true), Some(false)][rng.below(3)];
                options.on = [vec![], vec![format!("room={}", rng.below(10))]][rng.below(2)].clone();
            }
            Form::Chain(_) | Form::Group(_) | Form::Chord { .. } if rng.one_in(8) => {
                options.partial = Some(rng.one_in(2));
            }
            _ => {}
        }
        options
    }
}

fn generate(seed: u64) -> Canvas {
    let mut rng = Rng::new(seed);
    let depth = rng.below(7) as u32;
    Generator { rng, budget: 60, calls: CaseCalls }.canvas(depth)
}

// --- The property, and the smallest canvas that violates it ---

fn agree(canvas: &Canvas, seed: u64) -> Result<Report, String> {
    let both = AssertUnwindSafe(|| {
        let mut rng = Rng::new(seed ^ 0x5eed);
        run_revoked(canvas, &mut rng);
        (Oracle::report(canvas), run(canvas, &mut rng))
    });
    let (oracle, plan) = catch_unwind(both).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default()
    })?;
    if oracle == plan {
        return Ok(oracle);
    }
    Err(format!("the oracle says {oracle:?}\nbut the plan says {plan:?}"))
}

/// Canvases that are a little smaller than this one.
fn smaller(canvas: &Canvas) -> Vec<Canvas> {
    let mut all: Vec<Canvas> = children(canvas).into_iter().cloned().collect();
    let lists = children_lists(canvas);
    for (which, list) in lists.iter().enumerate() {
        for index in 0..list.len() {
            let mut without = canvas.clone();
            children_lists_mut(&mut without)[which].remove(index);
            all.push(without);
            for child in smaller(&list[index]) {
                let mut with = canvas.clone();
                children_lists_mut(&mut with)[which][index] = child;
                all.push(with);
            }
        }
    }
    if let Form::Chord { body, .. } = &canvas.form {
        for child in smaller(body) {
            let mut with = canvas.clone();
            if let Form::Chord { body, .. } = &mut with.form {
                **body = child;
            }
            all.push(with);
        }
    }
    if canvas.options != Options::default() {
        all.push(Canvas { options: Options::default(), ..canvas.clone() });
    }
    all.retain(|canvas| !matches!(&canvas.form, Form::Chain(steps) if steps.is_empty()));
    all
}

fn children(canvas: &Canvas) -> Vec<&Canvas> {
    let body = match &canvas.form {
        Form::Chord { body, .. } => Some(&**body),
        _ => None,
    };
    children_lists(canvas).into_iter().flatten().chain(body).collect()
}

fn children_lists(canvas: &Canvas) -> Vec<&Vec<Canvas>> {
    let members = match &canvas.form {
        Form::Chain(members) | Form::Group(members) | Form::Chord { header: members, .. } => Some(members),
        _ => None,
    };
    members.into_iter().chain([&canvas.link, &canvas.on_error]).collect()
}

fn children_lists_mut(canvas: &mut Canvas) -> Vec<&mut Vec<Canvas>> {
    let members = match &mut canvas.form {
        Form::Chain(members) | Form::Group(members) | Form::Chord { header: members, .. } => Some(members),
        _ => None,
    };
    members.into_iter().chain([&mut canvas.link, &mut canvas.on_error]).collect()
}

fn shrunk(mut canvas: Canvas, seed: u64) -> Canvas {
    // Each round removes something, so the loop ends.
    while let Some(next) = smaller(&canvas).into_iter().find(|c| agree(c, seed).is_err()) {
        canvas = next;
    }
    canvas
}

/// A canvas, similar to the text form.
fn brief(canvas: &Canvas) -> String {
    let all = |list: &[Canvas]| list.iter().map(brief).collect::<Vec<_>>().join(", ");
    let mut text = match &canvas.form {
        Form::Task(Task { function, args, kwargs, immutable }) => {
            let s = if *immutable { "si" } else { "s" };
            format!("{function}.{s}(*{args}, **{kwargs:?})")
        }
        Form::Chain(steps) => format!("chain({})", all(steps)),
        Form::Group(members) => format!("group({})", all(members)),
        Form::Chord { header, body } => format!("chord([{}], {})", all(header), brief(body)),
        Form::Map { function, items } => format!("{function}.map({items})"),
        Form::Starmap { function, items } => format!("{function}.starmap({items})"),
        Form::Chunks { function, items, split } => format!("{function}.chunks({items}, {split:?})"),
    };
    let options = chosen(&canvas.options, &Chosen::new());
    if !options.is_empty() {
        text += &format!(".set({options:?})");
    }
    for (method, callbacks) in [("link", &canvas.link), ("on_error", &canvas.on_error)] {
        text.extend(callbacks.iter().map(|callback| format!(".{method}({})", brief(callback))));
    }
    text
}

// --- Coverage ---

#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn add(&mut self, what: impl Into<String>, count: usize) {
        *self.0.entry(what.into()).or_default() += count as u64;
    }

    fn case(&mut self, canvas: &Canvas, report: &Report) {
        self.canvas(canvas);
        self.add(format!("depth {}", depth(canvas)), 1);
        let tasks = [0, 1, 5, 20, 50, 100, 200].iter().rfind(|&&from| report.tasks >= from);
        self.add(format!("tasks, from {:3}", tasks.unwrap_or(&0)), 1);
        match &report.result {
            Ok(value) if is_falsy(value) => self.add("result falsy", 1),
            Ok(_) => self.add("result other", 1),
            Err(failure) => self.add(format!("result failed, {} members deep", failure.members.len()), 1),
        }
        self.add("calls", report.calls.len());
        self.add("tasks that never ran", report.tasks as usize - report.calls.len());
        self.add("tasks replaced", report.calls.iter().filter(|call| call.starts_with("w.become Single")).count());
        self.add("runs on each node", report.calls.iter().filter(|call| call.contains("\"on\": \"=")).count());
        self.add("callbacks that failed", report.failed_callbacks.len());
    }

    fn canvas(&mut self, canvas: &Canvas) {
        let form = match &canvas.form {
            Form::Task(task) if task.immutable => "immutable task",
            Form::Task(task) if !task.kwargs.is_empty() => "task with keyword",
            Form::Task(_) => "task",
            Form::Chain(_) => "chain",
            Form::Group(members) if members.is_empty() => "empty group",
            Form::Group(_) => "group",
            Form::Chord { header, .. } if header.is_empty() => "chord with empty header",
            Form::Chord { .. } => "chord",
            Form::Map { .. } => "map",
            Form::Starmap { .. } => "starmap",
            Form::Chunks { split: Split::Bins(_), .. } => "chunks in bins",
            Form::Chunks { split: Split::Size(_), .. } => "chunks by size",
        };
        self.add(format!("form {form}"), 1);
        self.add("form with each", usize::from(canvas.options.each.is_some()));
        self.add("form with partial", usize::from(canvas.options.partial == Some(true)));
        self.add("form with options", usize::from(canvas.options != Options::default()));
        self.add("form with link", usize::from(!canvas.link.is_empty()));
        self.add("form with on_error", usize::from(!canvas.on_error.is_empty()));
        children(canvas).into_iter().for_each(|child| self.canvas(child));
    }
}

fn depth(canvas: &Canvas) -> usize {
    1 + children(canvas).into_iter().map(depth).max().unwrap_or(0)
}

const MUST_OCCUR: [&str; 23] = [
    "form with each",
    "form with partial",
    "tasks replaced",
    "runs on each node",
    "form task",
    "form immutable task",
    "form task with keyword",
    "form chain",
    "form group",
    "form empty group",
    "form chord",
    "form chord with empty header",
    "form map",
    "form starmap",
    "form chunks in bins",
    "form chunks by size",
    "form with options",
    "form with link",
    "form with on_error",
    "result falsy",
    "result other",
    "tasks that never ran",
    "callbacks that failed",
];

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_plan_agrees_with_the_oracle() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    let first = from_env("ORACLE_SEED").unwrap_or_else(now);
    let cases = from_env("ORACLE_CASES").unwrap_or(CASES);
    let mut seen = Seen::default();
    for seed in (0..cases).map(|i| first.wrapping_add(i)) {
        let canvas = generate(seed);
        match agree(&canvas, seed) {
            Ok(report) => seen.case(&canvas, &report),
            Err(_) => {
                std::panic::set_hook(Box::new(|_| {}));
                let small = shrunk(canvas, seed);
                let _ = std::panic::take_hook();
                let why = agree(&small, seed).expect_err("it was shrunk to a failure");
                panic!("ORACLE_SEED={seed} ORACLE_CASES=1\nsmallest canvas: {}\n{why}", brief(&small));
            }
        }
    }
    let mut table = format!("{cases} cases from seed {first}\n");
    for (what, count) in &seen.0 {
        writeln!(table, "{count:>8}  {what}").expect("writing to a String cannot fail");
    }
    println!("{table}");
    if cases >= CASES {
        let missing = |what: &&&str| seen.0.get(**what).is_none_or(|&count| count == 0);
        let missing: Vec<_> = MUST_OCCUR.iter().filter(missing).collect();
        assert!(missing.is_empty(), "never occurred: {missing:?}");
    }
}
