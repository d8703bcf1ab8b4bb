//! Python's own functions that a text can call: `range`, `zip`, `list` and `float`.

use crate::ITEMS_MAX;
use crate::ast::{Args, Fallible, Pos, fail};
use crate::eval::Evaluator;
use crate::value::{Range, Value, found};

impl Evaluator {
    /// Calls the builtin. Returns `None` if there is none with this name.
    pub(crate) fn builtin(&mut self, at: Pos, name: &str, args: &Args) -> Fallible<Option<Value>> {
        let built = match name {
            "range" | "xrange" => self.range(at, args)?,
            "zip" => self.zip(at, args)?,
            "list" => self.list(at, args)?,
            "float" => self.float(at, args)?,
            _ => return Ok(None),
        };
        Ok(Some(built))
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

    fn list(&mut self, at: Pos, args: &Args) -> Fallible<Value> {
        let values = self.values(args)?;
        values.no_keywords("list")?;
        match values.positional.as_slice() {
            [] => self.meter.list(at, Vec::new()),
            [(at, value)] => {
                let items = self.meter.items(*at, value, "the argument of `list`")?;
                self.meter.list(*at, items)
            }
            more => fail(at, format!("`list` takes one argument, found {}", more.len())),
        }
    }

    /// `float("nan")` and other values that have no literals.
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
