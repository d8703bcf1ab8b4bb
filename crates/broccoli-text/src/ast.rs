//! The syntax tree between parser and evaluator, with the position of each part in the text.

/// A position in the text: line and column (in code points), both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pos {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// An error at a position.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) at: Pos,
    pub(crate) message: String,
}

pub(crate) type Fallible<T> = Result<T, Failure>;

pub(crate) fn fail<T>(at: Pos, message: impl Into<String>) -> Fallible<T> {
    Err(Failure { at, message: message.into() })
}

/// One statement. The last statement of a text is its job.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The variable that is assigned.
    pub(crate) target: Option<String>,
    pub(crate) value: Expr,
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) at: Pos,
    pub(crate) kind: ExprKind,
}

/// Operators of one precedence are kept as a list, so that only brackets and unary operators nest. This bounds the
/// recursion over the tree by `NESTING_MAX`.
#[derive(Debug)]
pub(crate) enum ExprKind {
    None,
    Bool(bool),
    /// Absolute value of an integer; 2^63 is valid only after a minus.
    Int(u64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Name(String),
    /// A list or tuple.
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// A list comprehension or generator.
    Comprehension(Box<Expr>, Vec<Clause>),
    Unary(Unary, Box<Expr>),
    /// `a + b - c`, or `a * b // c % d`.
    Arithmetic(Box<Expr>, Vec<(Arithmetic, Expr)>),
    Power(Box<Expr>, Box<Expr>),
    /// `a < b <= c`
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    /// `a | b | c`
    Pipe(Vec<Expr>),
    /// `a.b(c).d`
    Postfix(Box<Expr>, Vec<Suffix>),
}

/// `for targets in items if condition…`
#[derive(Debug)]
pub(crate) struct Clause {
    pub(crate) targets: Vec<String>,
    /// Whether each item is unpacked into the targets, even into a single one (`for i, in …`).
    pub(crate) unpack: bool,
    pub(crate) items: Expr,
    pub(crate) conditions: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Minus,
    Plus,
    /// `~`: runs a canvas and gets its result.
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Sub,
    Mul,
    FloorDiv,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug)]
pub(crate) struct Suffix {
    pub(crate) at: Pos,
    pub(crate) kind: SuffixKind,
}

#[derive(Debug)]
pub(crate) enum SuffixKind {
    /// `.name`
    Dot(String),
    /// `(…)`
    Call(Args),
}

#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Expr>,
    pub(crate) keywords: Vec<Keyword>,
}

#[derive(Debug)]
pub(crate) struct Keyword {
    pub(crate) at: Pos,
    pub(crate) name: String,
    pub(crate) value: Expr,
}
