//! Evaluates statements: variables, literals, comprehensions, arithmetic and comparisons.
//!
//! Owns the scopes. Calls, and `|` of signatures, are in `calls.rs` and `forms.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::ast::{Arithmetic, Clause, Compare, Expr, ExprKind, Fallible, Pos, Statement, Unary, fail};
use crate::number::{self, Number, NumberError};
use crate::value::{Meter, Outcome, Value, found};
use crate::{ITEMS_MAX, Program};

/// Evaluates all statements. The value of the last one is the job.
pub(crate) fn run(statements: &[Statement]) -> Fallible<Program> {
    let mut evaluator = Evaluator::default();
    let mut last = None;
    for statement in statements {
        let value = evaluator.eval(&statement.value)?;
        if let Some(target) = &statement.target {
            evaluator.variables.insert(target.clone(), value.clone());
        }
        last = Some((statement.value.at, value));
    }
    // Drop the variables first: values with no other owner need not be copied.
    evaluator.variables.clear();
    let Some((at, value)) = last else {
        return fail(Pos { line: 1, column: 1 }, "nothing to run");
    };
    let (canvas, wait_ms) = match value {
        Value::Outcome(outcome) => (outcome.canvas.clone(), outcome.wait_ms),
        value => (evaluator.signature(at, value, "the last line")?, None),
    };
    let canvas = Rc::try_unwrap(canvas).unwrap_or_else(|shared| (*shared).clone()).canvas;
    Ok(Program { canvas, wait: wait_ms.map(Duration::from_millis) })
}

#[derive(Default)]
pub(crate) struct Evaluator {
    variables: BTreeMap<String, Value>,
    /// Loop variables, innermost last.
    locals: Vec<(String, Value)>,
    pub(crate) meter: Meter,
}

impl Evaluator {
    pub(crate) fn lookup(&self, name: &str) -> Option<&Value> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local.map(|(_, value)| value).or_else(|| self.variables.get(name))
    }

    /// Assigns to an existing variable.
    pub(crate) fn assign(&mut self, name: &str, value: Value) {
        match self.locals.iter_mut().rev().find(|(local, _)| local == name) {
            Some((_, local)) => *local = value,
            None => {
                self.variables.insert(name.to_string(), value);
            }
        }
    }

    pub(crate) fn eval(&mut self, expr: &Expr) -> Fallible<Value> {
        let at = expr.at;
        self.meter.steps(at, 1)?;
        match &expr.kind {
            ExprKind::None => Ok(Value::None),
            ExprKind::Bool(value) => Ok(Value::Bool(*value)),
            ExprKind::Int(n) => i64::try_from(*n).map(Value::Int).or_else(|_| overflow(at, "", *n)),
            ExprKind::Float(x) => Ok(Value::Float(*x)),
            ExprKind::Str(text) => self.meter.text(at, text.clone()),
            ExprKind::Bytes(bytes) => {
                self.meter.bytes(at, bytes.len())?;
                Ok(Value::Bytes(bytes.as_slice().into()))
            }
            ExprKind::Name(name) => match self.lookup(name) {
                Some(value) => Ok(value.clone()),
                None => function(at, name),
            },
            ExprKind::List(items) => {
                let items = items.iter().map(|item| self.eval(item)).collect::<Fallible<_>>()?;
                self.meter.list(at, items)
            }
            ExprKind::Dict(pairs) => self.dict(at, pairs),
            ExprKind::Comprehension(element, clauses) => {
                let mut items = Vec::new();
                self.comprehend(element, clauses, &mut items)?;
                self.meter.list(at, items)
            }
            ExprKind::Unary(operator, operand) => self.unary(at, *operator, operand),
            ExprKind::Arithmetic(first, rest) => {
                let first = self.eval(first)?;
                rest.iter().try_fold(first, |left, (operator, right)| {
                    let right_at = right.at;
                    let right = self.eval(right)?;
                    self.arithmetic(right_at, *operator, &left, &right)
                })
            }
            ExprKind::Power(base, exponent) => {
                let (base_value, exponent_value) = (self.eval(base)?, self.eval(exponent)?);
                let (base, exponent) = (number(base.at, &base_value)?, number(exponent.at, &exponent_value)?);
                computed(at, number::power(base, exponent))
            }
            ExprKind::Compare(first, rest) => self.compare(first, rest),
            ExprKind::Pipe(steps) => self.pipe(at, steps),
            ExprKind::Postfix(base, suffixes) => self.postfix(base, suffixes),
        }
    }

    fn dict(&mut self, at: Pos, pairs: &[(Expr, Expr)]) -> Fallible<Value> {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Key {
            Int(i64),
            Str(Rc<str>),
        }
        let mut dict: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        let mut places = BTreeMap::new();
        for (key_expr, value) in pairs {
            let key = self.eval(key_expr)?;
            let ordered = match &key {
                Value::Int(n) => Key::Int(*n),
                Value::Str(text) => Key::Str(text.clone()),
                other => {
                    return fail(key_expr.at, format!("a key must be a string or an integer, found {}", found(other)));
                }
            };
            let value = self.eval(value)?;
            match places.get(&ordered) {
                Some(&place) => dict[place] = (key, value),
                None => {
                    places.insert(ordered, dict.len());
                    dict.push((key, value));
                }
            }
        }
        self.meter.dict(at, dict)
    }

    fn comprehend(&mut self, element: &Expr, clauses: &[Clause], out: &mut Vec<Value>) -> Fallible<()> {
        let Some((clause, inner)) = clauses.split_first() else {
            if out.len() == ITEMS_MAX {
                return fail(element.at, format!("a comprehension makes more than {ITEMS_MAX} items"));
            }
            out.push(self.eval(element)?);
            return Ok(());
        };
        let iterated = self.eval(&clause.items)?;
        let items = self.meter.items(clause.items.at, &iterated, "what `for` iterates")?;
        let outer = self.locals.len();
        for item in items {
            self.bind(clause, item)?;
            let mut wanted = true;
            for condition in &clause.conditions {
                wanted = wanted && self.eval(condition)?.is_true();
            }
            if wanted {
                self.comprehend(element, inner, out)?;
            }
            self.locals.truncate(outer);
        }
        Ok(())
    }

    fn bind(&mut self, clause: &Clause, item: Value) -> Fallible<()> {
        if !clause.unpack {
            self.locals.push((clause.targets[0].clone(), item));
            return Ok(());
        }
        let (at, wanted) = (clause.items.at, clause.targets.len());
        let values = self.meter.items(at, &item, "an item that is unpacked")?;
        if values.len() != wanted {
            return fail(at, format!("cannot unpack {} values into {wanted} loop variables", values.len()));
        }
        self.locals.extend(clause.targets.iter().cloned().zip(values));
        Ok(())
    }

    fn unary(&mut self, at: Pos, operator: Unary, operand: &Expr) -> Fallible<Value> {
        if let (Unary::Minus, ExprKind::Int(n)) = (operator, &operand.kind) {
            return 0i64.checked_sub_unsigned(*n).map(Value::Int).map_or_else(|| overflow(at, "-", *n), Ok);
        }
        let value = self.eval(operand)?;
        if operator == Unary::Run {
            let canvas = self.signature(operand.at, value, "what `~` runs")?;
            return Ok(Value::Outcome(Rc::new(Outcome { canvas, wait_ms: None })));
        }
        computed(at, number::unary(operator, number(operand.at, &value)?))
    }

    fn arithmetic(&mut self, at: Pos, operator: Arithmetic, left: &Value, right: &Value) -> Fallible<Value> {
        match (operator, left, right) {
            (Arithmetic::Add, Value::Str(left), Value::Str(right)) => self.meter.text(at, format!("{left}{right}")),
            (Arithmetic::Add, Value::List(left), Value::List(right)) => {
                self.meter.steps(at, left.items.len() + right.items.len())?;
                self.meter.list(at, left.items.iter().chain(&right.items).cloned().collect())
            }
            (_, Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
                computed(at, number::arithmetic(operator, number(at, left)?, number(at, right)?))
            }
            _ => fail(at, format!("expected two numbers, found {} and {}", found(left), found(right))),
        }
    }

    fn compare(&mut self, first: &Expr, rest: &[(Compare, Expr)]) -> Fallible<Value> {
        let mut left = self.eval(first)?;
        for (operator, expr) in rest {
            let right = self.eval(expr)?;
            if !holds(expr.at, *operator, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }
}

/// A name that is not defined in the text is a function of the cluster.
fn function(at: Pos, name: &str) -> Fallible<Value> {
    if !broccoli_abi::is_name(name) {
        let max = broccoli_abi::NAME_LEN_MAX;
        return fail(at, format!("no function can be named `{name}`: use letters, digits and _, at most {max}"));
    }
    Ok(Value::Function(name.into()))
}

fn number(at: Pos, value: &Value) -> Fallible<Number> {
    match value {
        Value::Int(n) => Ok(Number::Int(*n)),
        Value::Float(x) => Ok(Number::Float(*x)),
        other => fail(at, format!("expected a number, found {}", found(other))),
    }
}

fn computed(at: Pos, result: Result<Number, NumberError>) -> Fallible<Value> {
    match result {
        Ok(Number::Int(n)) => Ok(Value::Int(n)),
        Ok(Number::Float(x)) => Ok(Value::Float(x)),
        Err(reason) => fail(at, reason),
    }
}

fn overflow<T>(at: Pos, sign: &str, magnitude: u64) -> Fallible<T> {
    fail(at, format!("`{sign}{magnitude}` does not fit in 64 bits"))
}

fn holds(at: Pos, operator: Compare, left: &Value, right: &Value) -> Fallible<bool> {
    let order = match (left, right) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            number(at, left)?.compare(number(at, right)?)
        }
        (Value::Str(left), Value::Str(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) if is_equality(operator) => Some(left.cmp(right)),
        (Value::None, Value::None) if is_equality(operator) => Some(std::cmp::Ordering::Equal),
        // Values of different kinds are unequal, as in Python.
        (left, right) if is_equality(operator) && is_plain(left) && is_plain(right) => None,
        (left, right) => {
            return fail(at, format!("cannot compare {} with {}", found(left), found(right)));
        }
    };
    Ok(operator.holds(order))
}

fn is_equality(operator: Compare) -> bool {
    matches!(operator, Compare::Equal | Compare::NotEqual)
}

fn is_plain(value: &Value) -> bool {
    matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
}
