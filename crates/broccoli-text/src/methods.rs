//! Methods of functions and canvases: `.s`, `.map`, `.set`, `.link` and others.

use std::rc::Rc;

use broccoli_proto::options::DELAYS_MS;
use broccoli_proto::{Cbor, Form, Options, Split};

use crate::ast::{Args, Fallible, Pos, fail};
use crate::calls::{Values, for_each_first};
use crate::eval::Evaluator;
use crate::parse::is_plain_name;
use crate::value::{Outcome, Sig, Value, found};
use crate::{ITEMS_MAX, options};

pub(crate) const FUNCTION_METHODS: [&str; 7] = ["s", "si", "map", "starmap", "chunks", "signature", "subtask"];
pub(crate) const CANVAS_METHODS: [&str; 7] = ["delay", "apply_async", "set", "link", "on_error", "link_error", "get"];

impl Evaluator {
    pub(crate) fn method(&mut self, at: Pos, name: &str, receiver: Value, args: &Args) -> Fallible<Value> {
        let values = self.values(args)?;
        match (name, &receiver) {
            ("s" | "si", Value::Function(function)) => {
                let (args, kwargs) = self.encode_all(values)?;
                self.task(at, function, args, kwargs, name == "si")
            }
            ("map" | "starmap", Value::Function(function)) => self.map(at, name, function, values),
            ("chunks", Value::Function(function)) => self.chunks(at, function, values),
            ("s" | "si" | "map" | "starmap" | "chunks", other) => {
                fail(at, format!("expected a function before `.{name}`, found {}", found(other)))
            }
            _ => {
                let sig = match receiver {
                    Value::Canvas(_) | Value::Function(_) | Value::Header(_) => self.signature(at, receiver, name)?,
                    other => {
                        return fail(at, format!("expected a canvas before `.{name}`, found {}", found(&other)));
                    }
                };
                self.canvas_method(at, name, sig, values)
            }
        }
    }

    fn canvas_method(&mut self, at: Pos, name: &str, sig: Rc<Sig>, mut values: Values) -> Fallible<Value> {
        match name {
            "delay" => self.call(at, Value::Canvas(sig), values),
            "signature" | "subtask" | "apply_async" => self.apply_async(at, name, sig, values),
            "set" => {
                if let Some((at, _)) = values.positional.first() {
                    return fail(*at, "`.set` takes options by name, such as `retries=3`");
                }
                self.set(at, sig, values.keywords)
            }
            "link" | "on_error" | "link_error" => {
                values.no_keywords(name)?;
                if values.positional.is_empty() {
                    return fail(at, format!("`.{name}` needs a signature"));
                }
                let mut sig = self.meter.take(sig, at)?;
                for (at, callback) in values.positional {
                    self.callback(at, &mut sig, name, callback)?;
                }
                Ok(Value::Canvas(Rc::new(sig)))
            }
            _ => {
                let keyword = values.take_keyword("timeout");
                values.no_keywords("get")?;
                let timeout = values.positional.pop().or(keyword);
                if let Some((at, _)) = values.positional.first() {
                    return fail(*at, "`.get` takes only a timeout in seconds");
                }
                let wait_ms = match timeout {
                    None | Some((_, Value::None)) => None,
                    Some((at, value)) => Some(at_place(at, options::milliseconds("timeout", &value, DELAYS_MS))?),
                };
                Ok(Value::Outcome(Rc::new(Outcome { canvas: sig, wait_ms })))
            }
        }
    }

    /// `.apply_async(args, kwargs, option=…)`, and `.signature` with the same arguments.
    fn apply_async(&mut self, at: Pos, name: &str, sig: Rc<Sig>, mut values: Values) -> Fallible<Value> {
        if let Some((at, _)) = values.positional.get(2) {
            return fail(*at, format!("`.{name}` takes a list of arguments, a dict and options by name"));
        }
        let (args, kwargs) = (values.take_keyword("args"), values.take_keyword("kwargs"));
        let mut given = values.positional.into_iter();
        let (args, kwargs) = (given.next().or(args), given.next().or(kwargs));
        let mut call = Values { positional: Vec::new(), keywords: Vec::new() };
        if let Some((at, value)) = args.filter(|(_, value)| !matches!(value, Value::None)) {
            let items = self.meter.items(at, &value, format_args!("what `.{name}` calls with"))?;
            call.positional = items.into_iter().map(|item| (at, item)).collect();
        }
        if let Some((at, value)) = kwargs.filter(|(_, value)| !matches!(value, Value::None)) {
            call.keywords = named(at, &value)?;
        }
        match self.call(at, Value::Canvas(sig), call)? {
            Value::Canvas(sig) => self.set(at, sig, values.keywords),
            other => Ok(other),
        }
    }

    fn set(&mut self, at: Pos, sig: Rc<Sig>, keywords: Vec<(Pos, String, Value)>) -> Fallible<Value> {
        let mut sig = self.meter.take(sig, at)?;
        let mut set = Options::default();
        for (at, name, value) in keywords {
            match name.as_str() {
                "immutable" => {
                    let immutable = at_place(at, options::boolean(&name, &value))?;
                    for_each_first(&mut sig.canvas, &mut |task| task.immutable = immutable);
                }
                "link" | "on_error" | "link_error" => match value {
                    Value::List(list) => {
                        for callback in &list.items {
                            self.callback(at, &mut sig, &name, callback.clone())?;
                        }
                    }
                    single => self.callback(at, &mut sig, &name, single)?,
                },
                _ => at_place(at, options::set(&mut set, &name, &value))?,
            }
        }
        sig.canvas.options = set.or(&sig.canvas.options);
        Ok(Value::Canvas(Rc::new(sig)))
    }

    fn callback(&mut self, at: Pos, sig: &mut Sig, method: &str, callback: Value) -> Fallible<()> {
        let callback = self.signature(at, callback, format_args!("the argument of `{method}`"))?;
        let callback = self.meter.take(callback, at)?;
        sig.nodes += callback.nodes;
        sig.bytes += callback.bytes;
        sig.depth = sig.depth.max(1 + callback.depth);
        let callbacks = if method == "link" { &mut sig.canvas.link } else { &mut sig.canvas.on_error };
        callbacks.push(callback.canvas);
        sig.check(at)
    }

    fn map(&mut self, at: Pos, name: &str, function: &str, values: Values) -> Fallible<Value> {
        values.no_keywords(name)?;
        let [(items_at, items)] = values.positional.as_slice() else {
            return fail(at, format!("`.{name}` takes one list, found {} arguments", values.positional.len()));
        };
        let items = self.items_of(*items_at, name, items, name == "starmap")?;
        let bytes = function.len() + items.as_bytes().len();
        let function = function.to_string();
        let form = if name == "map" { Form::Map { function, items } } else { Form::Starmap { function, items } };
        self.node(at, form.into(), bytes, &[])
    }

    fn chunks(&mut self, at: Pos, function: &str, mut values: Values) -> Fallible<Value> {
        let bins = values.take_keyword("n");
        let size = values.take_keyword("size");
        values.no_keywords("chunks")?;
        let mut positional = values.positional.into_iter();
        let (Some((items_at, items)), bins, None) = (positional.next(), positional.next().or(bins), positional.next())
        else {
            return fail(at, "`.chunks` takes a list and the number of bins");
        };
        let split = match (bins, size) {
            (Some((at, n)), None) => Split::Bins(count(at, "n", &n)?),
            (None, Some((at, size))) => Split::Size(count(at, "size", &size)?),
            _ => return fail(at, "`.chunks` takes one of the number of bins and `size=`, the items of a bin"),
        };
        let items = self.items_of(items_at, "chunks", &items, true)?;
        let bytes = function.len() + items.as_bytes().len();
        self.node(at, Form::Chunks { function: function.to_string(), items, split }.into(), bytes, &[])
    }

    /// The encoded items of `map`, `starmap` or `chunks`. For the last two, `argument_lists` is true.
    fn items_of(&mut self, at: Pos, name: &str, items: &Value, argument_lists: bool) -> Fallible<Cbor> {
        let first_other = match items {
            Value::List(list) => {
                let mut items = list.items.iter();
                items.position(|item| !matches!(item, Value::List(_))).map(|index| (index, list.items[index].clone()))
            }
            Value::Range(range) if range.len() > 0 => Some((0, Value::Int(range.start))),
            Value::Range(_) => None,
            other => return fail(at, format!("`.{name}` needs a list, found {}", found(other))),
        };
        if let (true, Some((index, item))) = (argument_lists, first_other) {
            let item = found(&item);
            return fail(at, format!("item {index} of `.{name}` must be a list or tuple of arguments, found {item}"));
        }
        self.meter.encode(at, items, format_args!("an item of `.{name}`"))
    }
}

fn named(at: Pos, value: &Value) -> Fallible<Vec<(Pos, String, Value)>> {
    let Value::Dict(dict) = value else {
        return fail(at, format!("arguments by name must be a dict, found {}", found(value)));
    };
    let pair = |(key, value): &(Value, Value)| match key {
        Value::Str(name) if is_plain_name(name) => Ok((at, name.to_string(), value.clone())),
        Value::Str(_) => fail(at, "the name of an argument has letters, digits and `_`, and is no word of Python"),
        other => fail(at, format!("the name of an argument must be a string, found {}", found(other))),
    };
    dict.pairs().iter().map(pair).collect()
}

fn count(at: Pos, name: &str, value: &Value) -> Fallible<u32> {
    match value {
        Value::Int(n) if (1..=ITEMS_MAX as i64).contains(n) => Ok(*n as u32),
        other => fail(at, format!("`{name}` of `.chunks` is 1 to {ITEMS_MAX}, found {}", found(other))),
    }
}

fn at_place<T>(at: Pos, result: Result<T, String>) -> Fallible<T> {
    result.or_else(|message| fail(at, message))
}
