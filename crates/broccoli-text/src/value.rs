//! Values of expressions during an evaluation, and the limits of an evaluation.
//!
//! Copies are shared, so reading a variable is cheap. Each container stores its depth, which bounds all recursion here.

use std::fmt;
use std::rc::Rc;

use broccoli_proto::canvas::CANVAS_DEPTH_MAX;
use broccoli_proto::cbor::put_array_header;
use broccoli_proto::{Canvas, Cbor};
use minicbor::Encoder;

use crate::ast::{Fallible, Pos, fail};
use crate::{BYTES_MAX, ITEMS_MAX, SIGNATURES_MAX, STEPS_MAX, VALUE_DEPTH_MAX};

#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Rc<List>),
    Dict(Rc<Dict>),
    Range(Range),
    /// A name that is not defined in the text: a function of the cluster.
    Function(Rc<str>),
    Canvas(Rc<Sig>),
    /// `chord(header)` without its body.
    Header(Rc<Sig>),
    /// `.get()` or `~`: the result of the job, after it has run.
    Outcome(Rc<Outcome>),
}

#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Value>,
    depth: usize,
}

#[derive(Debug)]
pub(crate) struct Dict {
    /// Keys are text or integers, each at most once.
    pairs: Vec<(Value, Value)>,
    depth: usize,
}

/// Python's `range`; `step` is never 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) stop: i64,
    pub(crate) step: i64,
}

/// A canvas and the cost of copying it.
#[derive(Clone, Debug)]
pub(crate) struct Sig {
    pub(crate) canvas: Canvas,
    /// Number of signatures and forms in it.
    pub(crate) nodes: usize,
    /// Bytes of encoded arguments and names.
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) canvas: Rc<Sig>,
    pub(crate) wait_ms: Option<u64>,
}

impl Range {
    pub(crate) fn len(self) -> u64 {
        let Range { start, stop, step } = self;
        let (low, high) = if step > 0 { (start, stop) } else { (stop, start) };
        if low >= high { 0 } else { (high.abs_diff(low) - 1) / step.unsigned_abs() + 1 }
    }

    /// Returns item `index`, which must be below [`Range::len`], so it cannot overflow.
    pub(crate) fn item(self, index: u64) -> i64 {
        (i128::from(self.start) + i128::from(self.step) * i128::from(index)) as i64
    }
}

impl Dict {
    pub(crate) fn pairs(&self) -> &[(Value, Value)] {
        &self.pairs
    }
}

impl Value {
    /// For "found …" in an error message.
    pub(crate) fn describe(&self) -> String {
        let short = |text: &str| text.chars().take(20).collect::<String>();
        match self {
            Value::None => "`None`".into(),
            Value::Bool(true) => "`True`".into(),
            Value::Bool(false) => "`False`".into(),
            Value::Int(n) => format!("the number {n}"),
            Value::Float(x) => format!("the number {x:?}"),
            Value::Str(text) => format!("the string {:?}", short(text)),
            Value::Bytes(_) => "bytes".into(),
            Value::List(_) => "a list".into(),
            Value::Dict(_) => "a dict".into(),
            Value::Range(_) => "a range".into(),
            Value::Function(name) => format!("`{}`", short(name)),
            Value::Canvas(_) => "a signature".into(),
            Value::Header(_) => "a chord without a body".into(),
            Value::Outcome(_) => "the result of a job, which is known only after it has run".into(),
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::None | Value::Bool(false) => false,
            Value::Int(n) => *n != 0,
            Value::Float(x) => *x != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::Bytes(bytes) => !bytes.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.pairs.is_empty(),
            Value::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            Value::Range(_) => 1,
            _ => 0,
        }
    }
}

impl Sig {
    /// Creates a form from parts. `canvas` must already contain the canvas of each part.
    pub(crate) fn around(canvas: Canvas, own_bytes: usize, parts: &[Weight], at: Pos) -> Fallible<Sig> {
        let nodes = 1 + parts.iter().map(|part| part.nodes).sum::<usize>();
        let bytes = own_bytes + parts.iter().map(|part| part.bytes).sum::<usize>();
        let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
        let sig = Sig { canvas, nodes, bytes, depth };
        sig.check(at)?;
        Ok(sig)
    }

    pub(crate) fn check(&self, at: Pos) -> Fallible<()> {
        if self.depth > CANVAS_DEPTH_MAX {
            return fail(at, format!("the canvas is nested deeper than {CANVAS_DEPTH_MAX} levels"));
        }
        if self.nodes > SIGNATURES_MAX {
            return fail(at, format!("the canvas has more than {SIGNATURES_MAX} signatures"));
        }
        Ok(())
    }

    pub(crate) fn weight(&self) -> Weight {
        Weight { nodes: self.nodes, bytes: self.bytes, depth: self.depth }
    }
}

/// The cost of a canvas: see [`Sig`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    pub(crate) nodes: usize,
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
}

/// Counts the steps and bytes of an evaluation, against [`STEPS_MAX`] and [`BYTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Meter {
    steps: u64,
    bytes: u64,
}

impl Meter {
    pub(crate) fn steps(&mut self, at: Pos, steps: usize) -> Fallible<()> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps > STEPS_MAX {
            return fail(at, format!("the text takes more than {STEPS_MAX} steps to evaluate"));
        }
        Ok(())
    }

    pub(crate) fn bytes(&mut self, at: Pos, bytes: usize) -> Fallible<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > BYTES_MAX {
            return fail(at, format!("the text makes more than {BYTES_MAX} bytes of arguments"));
        }
        Ok(())
    }

    /// Takes the canvas. Copies it if it is shared.
    pub(crate) fn take(&mut self, sig: Rc<Sig>, at: Pos) -> Fallible<Sig> {
        Rc::try_unwrap(sig).or_else(|shared| {
            self.steps(at, shared.nodes)?;
            self.bytes(at, shared.bytes)?;
            Ok((*shared).clone())
        })
    }

    pub(crate) fn list(&mut self, at: Pos, items: Vec<Value>) -> Fallible<Value> {
        self.steps(at, items.len())?;
        if items.len() > ITEMS_MAX {
            return fail(at, format!("a list has more than {ITEMS_MAX} items"));
        }
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        check_depth(at, depth)?;
        Ok(Value::List(Rc::new(List { items, depth })))
    }

    /// Creates a dict. `pairs` must have each key once.
    pub(crate) fn dict(&mut self, at: Pos, pairs: Vec<(Value, Value)>) -> Fallible<Value> {
        let depth = 1 + pairs.iter().map(|(_, value)| value.depth()).max().unwrap_or(0);
        check_depth(at, depth)?;
        Ok(Value::Dict(Rc::new(Dict { pairs, depth })))
    }

    pub(crate) fn text(&mut self, at: Pos, text: String) -> Fallible<Value> {
        self.bytes(at, text.len())?;
        Ok(Value::Str(text.into()))
    }

    /// The items of an iterable value. `what` names it in error messages.
    pub(crate) fn items(&mut self, at: Pos, value: &Value, what: impl fmt::Display) -> Fallible<Vec<Value>> {
        match value {
            Value::List(list) => {
                self.steps(at, list.items.len())?;
                Ok(list.items.clone())
            }
            Value::Range(range) => {
                let len = self.range_len(at, *range)?;
                Ok((0..len).map(|index| Value::Int(range.item(index))).collect())
            }
            other => fail(at, format!("{what} must be a list, found {}", found(other))),
        }
    }

    fn range_len(&mut self, at: Pos, range: Range) -> Fallible<u64> {
        let len = range.len();
        if len > ITEMS_MAX as u64 {
            return fail(at, format!("the range has {len} items, more than {ITEMS_MAX}"));
        }
        self.steps(at, len as usize)?;
        Ok(len)
    }

    /// Encodes a value as an argument. `what` names it in error messages.
    pub(crate) fn encode(&mut self, at: Pos, value: &Value, what: impl fmt::Display) -> Fallible<Cbor> {
        let mut out = Vec::new();
        self.put(at, value, &what, &mut out)?;
        self.bytes(at, out.len())?;
        Ok(Cbor::from_encoded(out))
    }

    fn put(&mut self, at: Pos, value: &Value, what: &dyn fmt::Display, out: &mut Vec<u8>) -> Fallible<()> {
        self.steps(at, 1)?;
        if out.len() as u64 > BYTES_MAX {
            return self.bytes(at, out.len());
        }
        let written = match value {
            Value::List(list) => {
                put_array_header(out, list.items.len());
                return list.items.iter().try_for_each(|item| self.put(at, item, what, out));
            }
            Value::Range(range) => {
                let len = self.range_len(at, *range)?;
                put_array_header(out, len as usize);
                return (0..len).try_for_each(|index| self.put(at, &Value::Int(range.item(index)), what, out));
            }
            Value::Dict(dict) => {
                Encoder::new(&mut *out).map(dict.pairs.len() as u64).expect("writing to a Vec cannot fail");
                return dict.pairs.iter().try_for_each(|(key, value)| {
                    self.put(at, key, what, out)?;
                    self.put(at, value, what, out)
                });
            }
            Value::None => Encoder::new(out).null().map(|_| ()),
            Value::Bool(value) => Encoder::new(out).bool(*value).map(|_| ()),
            Value::Int(n) => Encoder::new(out).i64(*n).map(|_| ()),
            // All NaNs are encoded the same, so that the same text is the same canvas.
            Value::Float(x) => Encoder::new(out).f64(if x.is_nan() { f64::NAN } else { *x }).map(|_| ()),
            Value::Str(text) => Encoder::new(out).str(text).map(|_| ()),
            Value::Bytes(bytes) => Encoder::new(out).bytes(bytes).map(|_| ()),
            Value::Function(_) | Value::Canvas(_) | Value::Header(_) | Value::Outcome(_) => {
                return fail(at, format!("{what} must be a value, found {}", found(value)));
            }
        };
        written.expect("writing to a Vec cannot fail");
        Ok(())
    }
}

fn check_depth(at: Pos, depth: usize) -> Fallible<()> {
    if depth > VALUE_DEPTH_MAX {
        return fail(at, format!("lists are nested deeper than {VALUE_DEPTH_MAX} levels"));
    }
    Ok(())
}

/// [`Value::describe`], with a hint if the name is probably a mistake.
pub(crate) fn found(value: &Value) -> String {
    let described = value.describe();
    match value {
        Value::Function(name) if &**name == "true" => format!("{described}: Python writes `True`"),
        Value::Function(name) if &**name == "false" => format!("{described}: Python writes `False`"),
        Value::Function(name) if &**name == "null" => format!("{described}: Python writes `None`"),
        Value::Function(_) => format!("{described}, which has no value"),
        _ => described,
    }
}
