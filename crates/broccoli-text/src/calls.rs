//! Calls: `f(…)`, `f.method(…)`, `canvas(…)`, and their arguments.

use std::rc::Rc;

use broccoli_proto::{Canvas, Cbor, Form, Task};

use crate::ast::{Args, Expr, ExprKind, Fallible, Pos, Suffix, SuffixKind, fail};
use crate::eval::Evaluator;
use crate::methods::{CANVAS_METHODS, FUNCTION_METHODS};
use crate::similar;
use crate::value::{Sig, Value, found};

/// Most arguments of one call.
const ARGS_MAX: usize = 256;

/// Encoded arguments of a call: by position and by name.
type Encoded = (Vec<Cbor>, Vec<(String, Cbor)>);

/// Evaluated arguments of a call.
pub(crate) struct Values {
    pub(crate) positional: Vec<(Pos, Value)>,
    pub(crate) keywords: Vec<(Pos, String, Value)>,
}

impl Values {
    pub(crate) fn take_keyword(&mut self, name: &str) -> Option<(Pos, Value)> {
        let place = self.keywords.iter().position(|(_, found, _)| found == name)?;
        let (at, _, value) = self.keywords.remove(place);
        Some((at, value))
    }

    /// The position of the first argument that is a canvas or a list of canvases: valid for forms, but not for
    /// functions.
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

    pub(crate) fn no_keywords(&self, callee: &str) -> Fallible<()> {
        match self.keywords.first() {
            Some((at, name, _)) => fail(*at, format!("`{callee}` has no argument `{name}`")),
            None => Ok(()),
        }
    }
}

impl Evaluator {
    pub(crate) fn values(&mut self, args: &Args) -> Fallible<Values> {
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
    pub(crate) fn postfix(&mut self, base: &Expr, suffixes: &[Suffix]) -> Fallible<Value> {
        let mut rest = suffixes;
        let mut variable = None;
        let mut value = match (&base.kind, suffixes) {
            (ExprKind::Name(name), _) if self.lookup(name).is_some() => {
                variable = Some(name.as_str());
                self.eval(base)?
            }
            (ExprKind::Name(name), [Suffix { kind: SuffixKind::Call(args), .. }, tail @ ..]) => {
                let built = match self.form(base.at, name, args)? {
                    None => self.builtin(base.at, name, args)?,
                    form => form,
                };
                match built {
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
                    // In Python these methods change the object of the variable.
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

    pub(crate) fn task(
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

    pub(crate) fn encode_all(&mut self, values: Values) -> Fallible<Encoded> {
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
    pub(crate) fn call(&mut self, at: Pos, value: Value, values: Values) -> Fallible<Value> {
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

    /// Calls a canvas with arguments. They are inserted before the arguments of its first task, or of each member.
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
}

/// `value.name` without a call. Only names of functions contain dots.
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

/// The first tasks of a canvas, which get the arguments of its call.
pub(crate) fn for_each_first(canvas: &mut Canvas, change: &mut dyn FnMut(&mut Task)) {
    match &mut canvas.form {
        Form::Task(task) => change(task),
        Form::Chain(steps) => steps.iter_mut().take(1).for_each(|step| for_each_first(step, change)),
        Form::Group(members) | Form::Chord { header: members, .. } => {
            for member in members.iter_mut() {
                for_each_first(member, change);
            }
        }
        Form::Map { .. } | Form::Starmap { .. } | Form::Chunks { .. } => {}
    }
}
