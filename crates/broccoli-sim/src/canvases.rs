//! Random canvases, for the scenarios of the simulator and the test of the plan against its oracle.

use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cbor, Form, Options, Split, SplitMix64, Task};

use crate::oracle::{COMMON, PARAMETERS, Value, falsy, large, list};

/// Random numbers of the scenario.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix64);

impl Rng {
    /// Those of a seed.
    pub fn new(seed: u64) -> Rng {
        Rng(SplitMix64(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// `true` once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A random element of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What differs between tests: the calls in a canvas, and their options. All of it is drawn from `rng`.
pub trait Calls {
    /// The name of a function.
    fn function(&mut self, rng: &mut Rng) -> String;

    /// The name of a function that is called in a bin.
    fn function_in_bin(&mut self, rng: &mut Rng) -> String {
        self.function(rng)
    }

    /// Arguments by name, of the parameters from `first_free` on.
    fn kwargs(&mut self, rng: &mut Rng, function: &str, first_free: usize) -> Vec<(String, Cbor)>;

    /// A value.
    fn value(&mut self, rng: &mut Rng) -> Value;

    /// The options of a canvas of this form.
    fn options(&mut self, rng: &mut Rng, form: &Form) -> Options;
}

/// Makes random canvases.
#[derive(Debug)]
pub struct Generator<C> {
    /// The random numbers.
    pub rng: Rng,
    /// How many canvases it may still make.
    pub budget: u32,
    /// What is called.
    pub calls: C,
}

impl<C: Calls> Generator<C> {
    /// A canvas of at most this depth.
    pub fn canvas(&mut self, depth: u32) -> Canvas {
        self.budget = self.budget.saturating_sub(1);
        let leaf = depth == 0 || self.budget == 0;
        let form = match self.rng.below(if leaf { 8 } else { 32 }) {
            0..5 => self.task(),
            5 => Form::Map { function: self.calls.function(&mut self.rng), items: self.values(5) },
            6 => Form::Starmap { function: self.calls.function(&mut self.rng), items: self.items() },
            7 => {
                let n = 1 + self.rng.below(4) as u32;
                let split = if self.rng.one_in(3) { Split::Size(n) } else { Split::Bins(n) };
                Form::Chunks { function: self.calls.function_in_bin(&mut self.rng), items: self.items(), split }
            }
            8..17 => Form::Chain(self.canvases(depth - 1, 1, 4)),
            17..25 => Form::Group(self.canvases(depth - 1, 0, 4)),
            _ => {
                let body = Box::new(self.canvas(depth - 1));
                Form::Chord { header: self.canvases(depth - 1, 0, 4), body }
            }
        };
        let mut canvas = Canvas::from(form);
        canvas.options = self.calls.options(&mut self.rng, &canvas.form);
        canvas.link = self.callbacks(depth);
        canvas.on_error = self.callbacks(depth);
        canvas
    }

    fn canvases(&mut self, depth: u32, min: usize, max: usize) -> Vec<Canvas> {
        let len = min + self.rng.below(max - min + 1);
        (0..len).map(|_| self.canvas(depth)).collect()
    }

    fn callbacks(&mut self, depth: u32) -> Vec<Canvas> {
        if depth == 0 || self.budget == 0 || !self.rng.one_in(6) {
            return Vec::new();
        }
        self.canvases(depth - 1, 1, 2)
    }

    /// At most two arguments by position, so that there is room for the result of a parent and one by name.
    fn task(&mut self) -> Form {
        let function = self.calls.function(&mut self.rng);
        let args = self.values(2);
        let kwargs = self.calls.kwargs(&mut self.rng, &function, list(&args).len() + 1);
        Form::Task(Task { function, args, kwargs, immutable: self.rng.one_in(5) })
    }

    fn values(&mut self, max: usize) -> Cbor {
        let len = self.rng.below(max + 1);
        Value::List((0..len).map(|_| self.calls.value(&mut self.rng)).collect()).encode()
    }

    fn items(&mut self) -> Cbor {
        let len = self.rng.below(7);
        let item = |_| Value::List((0..self.rng.below(4)).map(|_| self.calls.value(&mut self.rng)).collect());
        Value::List((0..len).map(item).collect()).encode()
    }
}

/// The calls of a scenario.
#[derive(Debug)]
pub struct ScenarioCalls {
    /// The functions to call.
    pub functions: Vec<&'static str>,
    /// Whether some arguments are large.
    pub large: bool,
    /// The names and labels that tasks may be routed to.
    pub places: Vec<String>,
    /// How many stamps were made so far. Each has its own tag.
    tags: u64,
    /// The time of day.
    pub unix_ms: u64,
}

impl Default for ScenarioCalls {
    /// Those of every seed.
    fn default() -> ScenarioCalls {
        ScenarioCalls { functions: COMMON.into(), large: false, places: Vec::new(), tags: 0, unix_ms: 0 }
    }
}

impl Calls for ScenarioCalls {
    fn function(&mut self, rng: &mut Rng) -> String {
        // Failures are rarer than the rest, or hardly anything would succeed.
        let name = match *rng.pick(&self.functions) {
            "fail" if !rng.one_in(8) => "stamp",
            "risky" if !rng.one_in(2) => "list",
            name => name,
        };
        format!("w.{name}")
    }

    fn function_in_bin(&mut self, rng: &mut Rng) -> String {
        // A call of a bin cannot replace itself.
        Some(self.function(rng)).filter(|name| name != "w.grow").unwrap_or("w.list".into())
    }

    fn kwargs(&mut self, rng: &mut Rng, function: &str, first_free: usize) -> Vec<(String, Cbor)> {
        if function == "w.stamp" {
            self.tags += 1;
            return vec![("d".to_owned(), Cbor::encode(&format!("t{}", self.tags)))];
        }
        if !rng.one_in(3) {
            return Vec::new();
        }
        let name = (*rng.pick(&PARAMETERS[first_free..])).to_owned();
        vec![(name, self.value(rng).encode())]
    }

    fn value(&mut self, rng: &mut Rng) -> Value {
        match rng.below(4) {
            _ if self.large && rng.one_in(12) => large(rng.bits() as u32),
            0 => falsy(rng.bits() as u32),
            1 => Value::Str("text".into()),
            2 => Value::List(vec![Value::Int(rng.below(9) as i64)]),
            _ => Value::Int(rng.bits() as i64 >> 31),
        }
    }

    fn options(&mut self, rng: &mut Rng, _: &Form) -> Options {
        let mut options = Options::default();
        if rng.one_in(4) {
            match rng.below(9) {
                0 => options.retries = Some(rng.below(5) as u32),
                5 => {
                    options.retries = Some(rng.below(5) as u32);
                    options.backoff_ms = Some(1 + rng.below(2_000) as u64);
                    options.jitter = rng.one_in(2).then_some(false);
                }
                6 => options.expires_ms = Some(100 + rng.below(20_000) as u64),
                7 => options.eta_unix_ms = Some(self.unix_ms + rng.below(5_000) as u64),
                8 => options.rate = Some(Rate { tasks: 5 + rng.below(20) as u32, per_ms: 1_000 }),
                1 => options.timeout_ms = Some(100 + rng.below(5_000) as u64),
                2 => options.priority = Some(rng.below(10) as u8),
                3 => options.countdown_ms = Some(rng.below(3_000) as u64),
                _ if self.places.is_empty() => {}
                _ => options.on = vec![rng.pick(&self.places).clone()],
            }
        }
        options
    }
}
