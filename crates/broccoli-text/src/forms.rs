//! Forms: `chain`, `group`, `chord` and `|`.
//!
//! The canvas has the structure of the text. There are two exceptions, both as in Celery: `|` joins its parts into one
//! chain, and `chord` takes the members of a group.

use std::rc::Rc;

use broccoli_proto::{Canvas, Form, Options};

use crate::ast::{Args, Expr, ExprKind, Fallible, Pos, fail};
use crate::calls::Values;
use crate::eval::Evaluator;
use crate::value::{Sig, Value, Weight, found};

/// What one signature costs, in steps of [`STEPS_MAX`](crate::STEPS_MAX).
const SIGNATURE_STEPS: usize = 8;

impl Evaluator {
    /// Builds the form. Returns `None` if there is none with this name.
    pub(crate) fn form(&mut self, at: Pos, name: &str, args: &Args) -> Fallible<Option<Value>> {
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
            _ => return Ok(None),
        };
        Ok(Some(built))
    }

    /// Builds a canvas from parts with these weights.
    pub(crate) fn node(&mut self, at: Pos, canvas: Canvas, bytes: usize, parts: &[Weight]) -> Fallible<Value> {
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

    /// The items of a list. Each has its own position if it is written out in the text.
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

    /// Converts a value to a signature. The bare name of a function means `f.s()`.
    pub(crate) fn signature(&mut self, at: Pos, value: Value, what: impl std::fmt::Display) -> Fallible<Rc<Sig>> {
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

    /// Converts the header of a chord to a group.
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

    /// `chord(header)(body)`
    pub(crate) fn chord_call(&mut self, at: Pos, header: Rc<Sig>, mut values: Values) -> Fallible<Value> {
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

    /// `a | b | c`: one chain. Chains without options or callbacks are merged into it.
    pub(crate) fn pipe(&mut self, at: Pos, steps: &[Expr]) -> Fallible<Value> {
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
}

fn is_plain(options: &Options, link: &[Canvas], on_error: &[Canvas]) -> bool {
    *options == Options::default() && link.is_empty() && on_error.is_empty()
}
