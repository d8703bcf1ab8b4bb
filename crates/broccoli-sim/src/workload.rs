//! The functions of the simulator, and a ledger of all their runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::{Execute, RunId};
use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Canvas, Cause, Cbor, NodeId};

use crate::canvases::Rng;
use crate::cluster::Id;
use crate::oracle::{self, FUNCTIONS, PARAMETERS, Value};

/// How many canvases the tasks of one seed submit, at most.
const PUSHES_MAX: usize = 12;
/// Longest pause of a retry that a task asks for.
const PAUSE_MS_MAX: usize = 2_000;

/// The built-in module `w` of every node.
pub fn natives() -> NativeModule {
    let optional = || Type::Optional(Box::new(Type::Any));
    let args: Vec<Arg> = PARAMETERS.iter().map(|name| Arg { name: (*name).into(), ty: optional() }).collect();
    let function = |name: &str| Function { name: name.into(), args: args.clone(), ret: Type::Any, doc: String::new() };
    NativeModule { name: "w".into(), functions: FUNCTIONS.into_iter().map(function).collect() }
}

/// One start of a function.
#[derive(Clone, Debug)]
pub struct Run {
    /// The node.
    pub node: Id,
    /// The incarnation of the node.
    pub start: u8,
    /// The origin of its task.
    pub origin: NodeId,
    /// The attempt.
    pub attempt: Attempt,
    /// Its arguments.
    pub args: Cbor,
    /// Its outcome, now or in future.
    pub outcome: Result<Cbor, Failure>,
    /// When it started, in microseconds.
    pub at_us: u64,
    /// Whether it has ended, on its own or aborted.
    pub ended: bool,
}

/// The functions, their faults, and the ledger of their runs.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// How many tasks trap, in thousandths.
    pub traps: usize,
    /// How many tasks take seconds, in thousandths.
    pub long: usize,
    /// How many tasks have trapped.
    pub trapped: u64,
    /// Every run, in order of starts.
    pub runs: Vec<Run>,
    under_way: BTreeMap<(Id, u8, RunId), usize>,
    /// Tasks that have asked for a retry. Each asks once.
    pub asked: BTreeSet<(NodeId, u64, u32)>,
    /// How many canvases tasks may still submit.
    pub pushes_left: usize,
}

impl Workload {
    /// Nothing was run yet.
    pub fn new(seed: u64) -> Workload {
        Workload {
            rng: Rng::new(seed),
            traps: 0,
            long: 0,
            trapped: 0,
            runs: Vec::new(),
            under_way: BTreeMap::new(),
            asked: BTreeSet::new(),
            pushes_left: PUSHES_MAX,
        }
    }

    /// Starts a run in an incarnation of a node. Returns how long it takes, and its outcome; `too_small` if the node
    /// has too little memory for it.
    pub fn start(
        &mut self,
        (node, start): (Id, u8),
        at_us: u64,
        attempt: Option<(NodeId, Attempt)>,
        execute: &Execute,
        version: u64,
        too_small: Option<Failure>,
    ) -> (Duration, Result<Cbor, Failure>) {
        let (origin, attempt) = attempt.expect("a run is an attempt at a task");
        let number = self.runs.len() as u64 + 1;
        let mut outcome = outcome(execute, version, number);
        let traps = self.rng.below(1_000) < self.traps;
        if let Some(failure) = too_small {
            outcome = Err(failure);
        } else if traps {
            self.trapped += 1;
            outcome = Err(Failure::new(Cause::Crashed, format!("trap (run {number})")));
        } else if execute.function.name == "asks" && self.asked.insert((origin, attempt.job, attempt.step)) {
            let failure = Failure::new(Cause::Returned, format!("asks (run {number})"));
            let pause_ms = 1 + self.rng.below(PAUSE_MS_MAX) as u64;
            outcome = Err(Failure { retry_after_ms: Some(pause_ms), ..failure });
        }
        let us = match self.rng.below(1_000) {
            n if n < self.long => 1_000_000 + self.rng.below(7_000_000),
            n if n < 500 => 0,
            n if n < 900 => 100 + self.rng.below(20_000),
            _ => 20_000 + self.rng.below(400_000),
        };
        let args = execute.args.clone();
        self.under_way.insert((node, start, execute.run), self.runs.len());
        self.runs.push(Run { node, start, origin, attempt, args, outcome: outcome.clone(), at_us, ended: false });
        (Duration::from_micros(us as u64), outcome)
    }

    /// The canvas that a run submits to the queue of its node, if it submits one.
    pub fn pushed(&mut self, execute: &Execute) -> Option<Canvas> {
        let pushes = execute.function.name == "push" && !execute.bin && self.pushes_left > 0;
        self.pushes_left -= usize::from(pushes);
        pushes.then(|| oracle::grown(&oracle::list(&execute.args)))
    }

    /// A run has ended.
    pub fn ended(&mut self, node: Id, start: u8, run: RunId) {
        if let Some(index) = self.under_way.remove(&(node, start, run)) {
            self.runs[index].ended = true;
        }
    }
}

fn outcome(execute: &Execute, version: u64, number: u64) -> Result<Cbor, Failure> {
    let name = execute.function.name.as_str();
    if name == "version" {
        return Ok(Cbor::encode(&version));
    }
    let args = oracle::list(&execute.args);
    if name == "grow" {
        return Ok(oracle::grown(&args).to_replacement());
    }
    let result = if execute.bin {
        let one = |item: &Value| oracle::apply(name, &oracle::list(&item.encode()), number);
        args.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::List)
    } else {
        oracle::apply(name, &args, number)
    };
    let failed = |text: String| Failure::new(Cause::Returned, format!("{text} (run {number})"));
    result.map(|value| value.encode()).map_err(failed)
}
