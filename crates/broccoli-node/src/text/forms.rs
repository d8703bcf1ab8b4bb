//! What builds canvases: forms (`chain`, `group`, `chord`), methods (`.s`, `.set`, …), calls and `|`.
//!
//! Trees are built as they are written; the only rewriting is that `|` joins into one chain and that
//! `chord` takes a group for its members, both as in Celery.

use std::rc::Rc;

use broccoli_proto::options::DELAYS_MS;
use broccoli_proto::{Canvas, Cbor, Form, Options, Split, Task};

use super::ITEMS_MAX;
use super::ast::{Args, Expr, ExprKind, Fallible, Pos, Suffix, SuffixKind, fail};
use super::eval::Evaluator;
use super::options;
use super::parse::is_plain_name;
use super::similar;
use super::value::{Outcome, Range, Sig, Value, Weight, found};

/// Most arguments of one call.
const ARGS_MAX: usize = 256;
/// What one signature costs against the limit of steps.
const SIGNATURE_STEPS: usize = 8;

pub(super) const FUNCTION_METHODS: [&str; 7] = ["s", "si", "map", "starmap", "chunks", "signature", "subtask"];
pub(super) const CANVAS_METHODS: [&str; 7] = ["delay", "apply_async", "set", "link", "on_error", "link_error", "get"];

/// Encoded arguments of a call: by position and by name.
type Encoded = (Vec<Cbor>, Vec<(String, Cbor)>);

/// Evaluated arguments of a call.
struct Values {
    positional: Vec<(Pos, Value)>,
    keywords: Vec<(Pos, String, Value)>,
}

impl Values {
    fn take_keyword(&mut self, name: &str) -> Option<(Pos, Value)> {
        let place = self.keywords.iter().position(|(_, found, _)| found == name)?;
        let (at, _, value) = self.keywords.remove(place);
        Some((at, value))
    }

    /// Where the first argument stands that is a canvas, or a list of such: what forms take, and functions do not.
    fn first_canvas(&self) -> Option<Pos> {
        fn holds(value: &Value) -> bool {
            match value {
                Value::Canvas(_) | Value::Header(_) | Value::Outcome(_) | Value::Function(_) => true,
                Value::List(list) => list.items.first().is_some_and(holds),
                _ => false,
            }
        }
        let named = self.keywords.iter().map(|(at, _, value)| (at, value));
        let all = self.positional.iter().map(|(at, value)| (at, value)).chain(named);
        all.filter(|(_, value)| holds(value)).map(|(at, _)| *at).next()
    }

    fn no_keywords(&self, callee: &str) -> Fallible<()> {
        match self.keywords.first() {
            Some((at, name, _)) => fail(*at, format!("`{callee}` has no argument `{name}`")),
            None => Ok(()),
        }
    }
}

impl Evaluator {
    fn values(&mut self, args: &Args) -> Fallible<Values> {
        let mut positional = Vec::with_capacity(args.positional.len());
        for expr in &args.positional {
            positional.push((expr.at, self.eval(expr)?));
        }
        let mut keywords = Vec::with_capacity(args.keywords.len());
        for keyword in &args.keywords {
            keywords.push((keyword.at, keyword.name.clone(), self.eval(&keyword.value)?));
        }
        Ok(Values { positional, keywords })
    }

    /// `base.name(…)(…)…`
    pub(super) fn postfix(&mut self, base: &Expr, suffixes: &[Suffix]) -> Fallible<Value> {
        let mut rest = suffixes;
        let mut variable = None;
        let mut value = match (&base.kind, suffixes) {
            (ExprKind::Name(name), _) if self.lookup(name).is_some() => {
                variable = Some(name.as_str());
                self.eval(base)?
            }
            (ExprKind::Name(name), [Suffix { kind: SuffixKind::Call(args), .. }, tail @ ..]) => {
                match self.form(base.at, name, args)? {
                    Some(built) => {
                        rest = tail;
                        built
                    }
                    None => self.eval(base)?,
                }
            }
            _ => self.eval(base)?,
        };
        while let [suffix, tail @ ..] = rest {
            rest = tail;
            match (&suffix.kind, tail) {
                (SuffixKind::Call(args), _) => {
                    variable = None;
                    let values = self.values(args)?;
                    value = self.call(suffix.at, value, values)?;
                }
                (SuffixKind::Dot(name), [Suffix { kind: SuffixKind::Call(args), .. }, tail @ ..])
                    if FUNCTION_METHODS.contains(&name.as_str()) || CANVAS_METHODS.contains(&name.as_str()) =>
                {
                    rest = tail;
                    value = self.method(suffix.at, name, value, args)?;
                    // In Python these change the object that the variable names.
                    variable = variable.filter(|_| matches!(name.as_str(), "set" | "link" | "on_error" | "link_error"));
                    if let Some(variable) = variable {
                        self.assign(variable, value.clone());
                    }
                }
                (SuffixKind::Dot(name), _) => {
                    variable = None;
                    value = dotted(suffix.at, &value, name)?;
                }
            }
        }
        Ok(value)
    }

    /// A form or a builtin, or `None` if there is none of this name.
    fn form(&mut self, at: Pos, name: &str, args: &Args) -> Fallible<Option<Value>> {
        let built = match name {
            "chain" | "Chain" => {
                let (steps, weights) = self.members("chain", args)?;
                if steps.is_empty() {
                    return fail(at, "the chain is empty: expected at least one signature");
                }
                self.node(at, Canvas::chain(steps), 0, &weights)?
            }
            "group" | "Group" => {
                let (members, weights) = self.members("group", args)?;
                self.node(at, Canvas::group(members), 0, &weights)?
            }
            "chord" | "Chord" => self.chord_form(at, args)?,
            "range" | "xrange" => self.range(at, args)?,
            "zip" => self.zip(at, args)?,
            "list" => {
                let values = self.values(args)?;
                values.no_keywords("list")?;
                match values.positional.as_slice() {
                    [] => self.meter.list(at, Vec::new())?,
                    [(at, value)] => {
                        let items = self.meter.items(*at, value, "the argument of `list`")?;
                        self.meter.list(*at, items)?
                    }
                    more => return fail(at, format!("`list` takes one argument, found {}", more.len())),
                }
            }
            "float" => self.float(at, args)?,
            _ => return Ok(None),
        };
        Ok(Some(built))
    }

    /// A canvas made of parts that weigh this.
    fn node(&mut self, at: Pos, canvas: Canvas, bytes: usize, parts: &[Weight]) -> Fallible<Value> {
        self.meter.steps(at, SIGNATURE_STEPS)?;
        Ok(Value::Canvas(Rc::new(Sig::around(canvas, bytes, parts, at)?)))
    }

    /// Members of a form: its arguments, or the items of its only argument if that is a list.
    fn members(&mut self, form: &str, args: &Args) -> Fallible<(Vec<Canvas>, Vec<Weight>)> {
        let mut values = self.values(args)?;
        values.no_keywords(form)?;
        let is_list = matches!(values.positional.as_slice(), [(_, Value::List(_) | Value::Range(_))]);
        let members = match values.positional.pop() {
            Some((at, list)) if is_list => self.listed(at, &list, &args.positional[0])?,
            last => {
                values.positional.extend(last);
                values.positional
            }
        };
        self.signatures(form, members)
    }

    /// The items of a list, each at its own place if they are written out.
    fn listed(&mut self, at: Pos, list: &Value, expr: &Expr) -> Fallible<Vec<(Pos, Value)>> {
        let items = self.meter.items(at, list, "the members")?;
        let places = match &expr.kind {
            ExprKind::List(exprs) => exprs.iter().map(|item| item.at).collect(),
            _ => Vec::new(),
        };
        let place = |index: usize| places.get(index).copied().unwrap_or(at);
        Ok(items.into_iter().enumerate().map(|(index, item)| (place(index), item)).collect())
    }

    fn signatures(&mut self, form: &str, members: Vec<(Pos, Value)>) -> Fallible<(Vec<Canvas>, Vec<Weight>)> {
        let mut canvases = Vec::with_capacity(members.len());
        let mut weights = Vec::with_capacity(members.len());
        for (index, (at, value)) in members.into_iter().enumerate() {
            let sig = self.signature(at, value, format_args!("item {index} of the {form}"))?;
            let sig = self.meter.take(sig, at)?;
            weights.push(sig.weight());
            canvases.push(sig.canvas);
        }
        Ok((canvases, weights))
    }

    /// The value as a signature; a function's bare name means `f.s()`.
    pub(super) fn signature(&mut self, at: Pos, value: Value, what: impl std::fmt::Display) -> Fallible<Rc<Sig>> {
        match value {
            Value::Canvas(sig) => Ok(sig),
            Value::Function(name) => match self.task(at, &name, Vec::new(), Vec::new(), false)? {
                Value::Canvas(sig) => Ok(sig),
                other => fail(at, format!("{what} must be a signature, found {}", found(&other))),
            },
            Value::Header(_) => fail(at, "a chord without a body: write `chord(header)(body)`"),
            other => fail(at, format!("{what} must be a signature such as `f.s(1)`, found {}", found(&other))),
        }
    }

    fn task(
        &mut self,
        at: Pos,
        function: &str,
        args: Vec<Cbor>,
        kwargs: Vec<(String, Cbor)>,
        immutable: bool,
    ) -> Fallible<Value> {
        let args = Cbor::array(args.iter().map(Cbor::as_bytes));
        let named = kwargs.iter().map(|(name, value)| name.len() + value.as_bytes().len()).sum::<usize>();
        let bytes = function.len() + args.as_bytes().len() + named;
        let task = Task { function: function.to_string(), args, kwargs, immutable };
        self.node(at, Form::Task(task).into(), bytes, &[])
    }

    fn encode_all(&mut self, values: Values) -> Fallible<Encoded> {
        if let Some((at, _)) = values.positional.get(ARGS_MAX) {
            return fail(*at, format!("a call has more than {ARGS_MAX} arguments; pass a list"));
        }
        let mut args = Vec::with_capacity(values.positional.len());
        for (index, (at, value)) in values.positional.iter().enumerate() {
            args.push(self.meter.encode(*at, value, format_args!("argument {}", index + 1))?);
        }
        let mut kwargs = Vec::with_capacity(values.keywords.len());
        for (at, name, value) in values.keywords {
            let encoded = self.meter.encode(at, &value, format_args!("argument `{name}`"))?;
            kwargs.push((name, encoded));
        }
        Ok((args, kwargs))
    }

    /// `value(…)`
    fn call(&mut self, at: Pos, value: Value, values: Values) -> Fallible<Value> {
        match value {
            Value::Function(name) => {
                if let (Some(at), Some(hint)) = (values.first_canvas(), similar::misread(&name)) {
                    return fail(at, hint);
                }
                let (args, kwargs) = self.encode_all(values)?;
                self.task(at, &name, args, kwargs, false)
            }
            Value::Canvas(sig) if values.positional.is_empty() && values.keywords.is_empty() => Ok(Value::Canvas(sig)),
            Value::Canvas(sig) => self.prepend(at, sig, values),
            Value::Header(header) => self.chord_call(at, header, values),
            other => fail(at, format!("expected a function or a canvas before `(`, found {}", found(&other))),
        }
    }

    /// Calls a canvas with arguments: they go before those of its first task, or of every member.
    fn prepend(&mut self, at: Pos, sig: Rc<Sig>, values: Values) -> Fallible<Value> {
        let (args, kwargs) = self.encode_all(values)?;
        let mut sig = self.meter.take(sig, at)?;
        let named = kwargs.iter().map(|(name, value)| name.len() + value.as_bytes().len());
        let added = args.iter().map(|arg| arg.as_bytes().len()).chain(named).sum::<usize>();
        self.meter.steps(at, sig.nodes)?;
        self.meter.bytes(at, added.saturating_mul(sig.nodes))?;
        sig.bytes = sig.bytes.saturating_add(added.saturating_mul(sig.nodes));
        sig.canvas.prepend_args(&args);
        for_each_first(&mut sig.canvas, &mut |task| {
            for (name, value) in kwargs.iter().filter(|_| !task.immutable) {
                task.kwargs.retain(|(known, _)| known != name);
                task.kwargs.push((name.clone(), value.clone()));
            }
        });
        Ok(Value::Canvas(Rc::new(sig)))
    }

    fn chord_form(&mut self, at: Pos, args: &Args) -> Fallible<Value> {
        let mut values = self.values(args)?;
        let body = values.take_keyword("body");
        values.no_keywords("chord")?;
        let mut positional = values.positional.into_iter();
        let Some((header_at, header)) = positional.next() else {
            return fail(at, "the chord has no header: write `chord(header)(body)`");
        };
        let body = positional.next().or(body);
        if let Some((at, _)) = positional.next() {
            return fail(at, "a chord has a header and a body: put the header's signatures into a list");
        }
        let header = self.header(header_at, header, args.positional.first())?;
        match body {
            Some((at, body)) => {
                let body = self.signature(at, body, "the body of the chord")?;
                self.chord(at, header, body)
            }
            None => Ok(Value::Header(header)),
        }
    }

    /// The header as a group.
    fn header(&mut self, at: Pos, header: Value, expr: Option<&Expr>) -> Fallible<Rc<Sig>> {
        let members = match (header, expr) {
            (list @ (Value::List(_) | Value::Range(_)), Some(expr)) => self.listed(at, &list, expr)?,
            (Value::Canvas(sig), _) if matches!(sig.canvas.form, Form::Group(_)) => return Ok(sig),
            (single, _) => vec![(at, single)],
        };
        let (members, weights) = self.signatures("header", members)?;
        self.meter.steps(at, SIGNATURE_STEPS)?;
        Ok(Rc::new(Sig::around(Canvas::group(members), 0, &weights, at)?))
    }

    fn chord_call(&mut self, at: Pos, header: Rc<Sig>, mut values: Values) -> Fallible<Value> {
        let keyword = values.take_keyword("body");
        values.no_keywords("chord")?;
        let mut positional = values.positional.into_iter();
        let Some((body_at, body)) = positional.next().or(keyword) else {
            return fail(at, "a chord without a body: write `chord(header)(body)`");
        };
        if let Some((at, _)) = positional.next() {
            return fail(at, "a chord has one body: expected `)`");
        }
        let body = self.signature(body_at, body, "the body of the chord")?;
        self.chord(at, header, body)
    }

    fn chord(&mut self, at: Pos, header: Rc<Sig>, body: Rc<Sig>) -> Fallible<Value> {
        let header = self.meter.take(header, at)?;
        let body = self.meter.take(body, at)?;
        let mut weights = [header.weight(), body.weight()];
        let canvas = match header.canvas {
            Canvas { form: Form::Group(members), ref options, ref link, ref on_error }
                if is_plain(options, link, on_error) =>
            {
                weights[0].depth -= 1;
                Canvas::chord(members, body.canvas)
            }
            group => Canvas::chain(vec![group, body.canvas]),
        };
        self.node(at, canvas, 0, &weights)
    }

    /// `a | b | c`: one chain, of which chains without options or callbacks become a part.
    pub(super) fn pipe(&mut self, at: Pos, steps: &[Expr]) -> Fallible<Value> {
        let mut chain = Vec::new();
        let mut weights = Vec::new();
        for step in steps {
            let value = self.eval(step)?;
            let sig = self.signature(step.at, value, "each side of `|`")?;
            let sig = self.meter.take(sig, step.at)?;
            let mut weight = sig.weight();
            match sig.canvas {
                Canvas { form: Form::Chain(inner), ref options, ref link, ref on_error }
                    if is_plain(options, link, on_error) =>
                {
                    weight.depth -= 1;
                    chain.extend(inner);
                }
                canvas => chain.push(canvas),
            }
            weights.push(weight);
        }
        self.node(at, Canvas::chain(chain), 0, &weights)
    }

    fn method(&mut self, at: Pos, name: &str, receiver: Value, args: &Args) -> Fallible<Value> {
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

    /// `.apply_async(args, kwargs, option=…)`, and `.signature` of the same arguments.
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

    /// The encoded items of `map`, `starmap` or `chunks`; those of the last two are `argument_lists`.
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

    fn range(&mut self, at: Pos, args: &Args) -> Fallible<Value> {
        let values = self.values(args)?;
        values.no_keywords("range")?;
        let mut bounds = Vec::new();
        for (at, value) in &values.positional {
            match value {
                Value::Int(n) => bounds.push(*n),
                other => return fail(*at, format!("`range` takes integers, found {}", found(other))),
            }
        }
        let (start, stop, step) = match bounds.as_slice() {
            [stop] => (0, *stop, 1),
            [start, stop] => (*start, *stop, 1),
            [_, _, 0] => return fail(at, "the step of a range cannot be 0"),
            [start, stop, step] => (*start, *stop, *step),
            other => return fail(at, format!("`range` takes 1 to 3 integers, found {}", other.len())),
        };
        Ok(Value::Range(Range { start, stop, step }))
    }

    fn zip(&mut self, at: Pos, args: &Args) -> Fallible<Value> {
        let values = self.values(args)?;
        values.no_keywords("zip")?;
        let mut len = if values.positional.is_empty() { 0 } else { u64::MAX };
        for (at, value) in &values.positional {
            len = len.min(match value {
                Value::List(list) => list.items.len() as u64,
                Value::Range(range) => range.len(),
                other => return fail(*at, format!("`zip` takes lists, found {}", found(other))),
            });
        }
        if len > ITEMS_MAX as u64 {
            return fail(at, format!("`zip` makes {len} items, more than {ITEMS_MAX}"));
        }
        let mut rows = Vec::new();
        for index in 0..len {
            let item = |(_, value): &(Pos, Value)| match value {
                Value::List(list) => list.items[index as usize].clone(),
                Value::Range(range) => Value::Int(range.item(index)),
                other => other.clone(),
            };
            rows.push(self.meter.list(at, values.positional.iter().map(item).collect())?);
        }
        self.meter.list(at, rows)
    }

    /// `float("nan")` and the like, which have no literals.
    fn float(&mut self, at: Pos, args: &Args) -> Fallible<Value> {
        let values = self.values(args)?;
        values.no_keywords("float")?;
        let parsed = match values.positional.as_slice() {
            [(_, Value::Int(n))] => Some(*n as f64),
            [(_, Value::Float(x))] => Some(*x),
            [(_, Value::Str(text))] => text.trim().parse().ok(),
            _ => None,
        };
        parsed.map(Value::Float).map_or_else(|| fail(at, "`float` takes a number or its text"), Ok)
    }
}

/// `value.name` without a call: only functions have dots in their names.
fn dotted(at: Pos, value: &Value, name: &str) -> Fallible<Value> {
    match value {
        Value::Function(module) if broccoli_abi::is_name(name) => {
            Ok(Value::Function(format!("{module}.{name}").into()))
        }
        Value::Function(_) => fail(at, format!("no function can be named `{name}`")),
        Value::Canvas(_) | Value::Header(_) => {
            let near = similar::closest(name, CANVAS_METHODS).map(|near| format!("did you mean `.{near}`?"));
            let all = || format!("there are .{}", CANVAS_METHODS.join(", ."));
            fail(at, format!("a signature has no `.{name}`: {}", near.unwrap_or_else(all)))
        }
        other => fail(at, format!("expected a function before `.{name}`, found {}", found(other))),
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

fn is_plain(options: &Options, link: &[Canvas], on_error: &[Canvas]) -> bool {
    *options == Options::default() && link.is_empty() && on_error.is_empty()
}

/// The tasks that a canvas starts with: those that get what it is called with.
fn for_each_first(canvas: &mut Canvas, change: &mut dyn FnMut(&mut Task)) {
    match &mut canvas.form {
        Form::Task(task) => change(task),
        Form::Chain(steps) => steps.iter_mut().take(1).for_each(|step| for_each_first(step, change)),
        Form::Group(members) | Form::Chord { header: members, .. } => {
            members.iter_mut().for_each(|member| for_each_first(member, change));
        }
        Form::Map { .. } | Form::Starmap { .. } | Form::Chunks { .. } => {}
    }
}
