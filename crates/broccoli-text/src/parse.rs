//! Recursive-descent parser: tokens to statements. Precedence is Python's.
//!
//! ```text
//! statement  = [NAME "="] expr | "import" … | "from" … "import" …      (imports are ignored)
//! expr       = pipe {("==" | "!=" | "<" | "<=" | ">" | ">=") pipe}
//! pipe       = sum {"|" sum}
//! sum        = term {("+" | "-") term}
//! term       = unary {("*" | "//" | "%") unary}
//! unary      = ("-" | "+" | "~") unary | postfix ["**" unary]
//! postfix    = atom {"." NAME | "(" args ")"}
//! atom       = NAME | literal | "(" … ")" | "[" … "]" | "{" expr ":" expr, … "}"
//! generator  = expr {"for" targets "in" expr {"if" expr}}
//! ```

use crate::NESTING_MAX;
use crate::ast::{
    Args, Arithmetic, Clause, Compare, Expr, ExprKind, Fallible, Keyword, Pos, Statement, Suffix, SuffixKind, Unary,
    fail,
};
use crate::lex::{Kind, Token};

/// Python keywords, which cannot be names.
const RESERVED: [&str; 28] = [
    "and", "as", "assert", "async", "await", "class", "def", "del", "elif", "else", "except", "finally", "for", "from",
    "global", "if", "import", "in", "is", "lambda", "not", "or", "pass", "return", "try", "while", "with", "yield",
];

/// Whether the text can use this as the name of a variable, function or argument.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let constant = matches!(name, "True" | "False" | "None");
    starts_well && name.chars().all(|c| c.is_alphanumeric() || c == '_') && !constant && !RESERVED.contains(&name)
}

/// Why a Python keyword cannot be a value, and what to write instead.
fn reserved(word: &str) -> String {
    match word {
        "lambda" | "def" | "class" => {
            format!("`{word}` is not supported: deploy a module that has the function, and call it by its name")
        }
        "while" | "try" | "with" | "if" | "for" => {
            format!(
                "`{word}` is no statement here: a text is one canvas, and its loops are `[f.s(i) for i in range(3)]`"
            )
        }
        _ => format!("expected an expression, found `{word}`: Python's `{word}` is not supported"),
    }
}

/// Parses all statements of a text.
pub(crate) fn statements(tokens: &[Token]) -> Fallible<Vec<Statement>> {
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let mut statements = Vec::new();
    loop {
        while parser.kind() == &Kind::EndOfLine {
            parser.advance();
        }
        if parser.kind() == &Kind::EndOfText {
            break;
        }
        statements.extend(parser.statement()?);
        if !matches!(parser.kind(), Kind::EndOfLine | Kind::EndOfText) {
            return parser.expected("an operator or the end of the line");
        }
    }
    if statements.is_empty() {
        return fail(parser.at(), "nothing to run: expected a canvas such as `add.s(2, 2)`");
    }
    Ok(statements)
}

struct Parser<'a> {
    /// Ends with [`Kind::EndOfText`]. The parser never moves past it.
    tokens: &'a [Token],
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn token(&self, ahead: usize) -> &Token {
        &self.tokens[(self.next + ahead).min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &Kind {
        &self.token(0).kind
    }

    fn at(&self) -> Pos {
        self.token(0).at
    }

    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.kind(), Kind::Sign(found) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == word)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn need(&mut self, sign: &str, expected: &str) -> Fallible<()> {
        if self.eat(sign) { Ok(()) } else { self.expected(expected) }
    }

    fn expected<T>(&self, what: &str) -> Fallible<T> {
        fail(self.at(), format!("expected {what}, found {}", self.kind()))
    }

    /// An error about `*args` or `**options`, with what to write instead.
    fn unpacking(&self) -> String {
        let name = if let Kind::Name(name) = &self.token(1).kind { name } else { "…" };
        if self.is_sign("**") {
            return format!("`**{name}` is not supported: write each `name=value`");
        }
        format!("`*{name}` is not supported: write the arguments one by one, or call `f.starmap([{name}])`")
    }

    fn statement(&mut self) -> Fallible<Option<Statement>> {
        if self.is_word("import") || self.is_word("from") {
            return self.import().map(|()| None);
        }
        let target = match (self.kind(), &self.token(1).kind) {
            (Kind::Name(name), Kind::Sign("=")) => {
                if !is_plain_name(name) {
                    return fail(self.at(), format!("`{name}` cannot be assigned"));
                }
                Some(name.clone())
            }
            _ => None,
        };
        if target.is_some() {
            self.advance();
            self.advance();
        }
        Ok(Some(Statement { target, value: self.expr()? }))
    }

    /// Functions are found by name, so imports are ignored.
    fn import(&mut self) -> Fallible<()> {
        while !matches!(self.kind(), Kind::EndOfLine | Kind::EndOfText) {
            if self.is_word("as") {
                return fail(self.at(), "`as` is not supported: use the function's own name");
            }
            self.advance();
        }
        Ok(())
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Fallible<T>) -> Fallible<T> {
        if self.depth == 2 * NESTING_MAX {
            return fail(self.at(), format!("nested deeper than {NESTING_MAX} levels"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expr(&mut self) -> Fallible<Expr> {
        self.nested(Self::comparison)
    }

    fn comparison(&mut self) -> Fallible<Expr> {
        let operator = |kind: &Kind| match kind {
            Kind::Sign("==") => Some(Compare::Equal),
            Kind::Sign("!=") => Some(Compare::NotEqual),
            Kind::Sign("<") => Some(Compare::Less),
            Kind::Sign("<=") => Some(Compare::LessEqual),
            Kind::Sign(">") => Some(Compare::Greater),
            Kind::Sign(">=") => Some(Compare::GreaterEqual),
            _ => None,
        };
        self.operations(operator, Self::pipe, ExprKind::Compare)
    }

    fn pipe(&mut self) -> Fallible<Expr> {
        let first = self.sum()?;
        if !self.is_sign("|") {
            return Ok(first);
        }
        let at = first.at;
        let mut steps = vec![first];
        while self.eat("|") {
            steps.push(self.sum()?);
        }
        Ok(Expr { at, kind: ExprKind::Pipe(steps) })
    }

    fn sum(&mut self) -> Fallible<Expr> {
        let operator = |kind: &Kind| match kind {
            Kind::Sign("+") => Some(Arithmetic::Add),
            Kind::Sign("-") => Some(Arithmetic::Sub),
            _ => None,
        };
        self.operations(operator, Self::term, ExprKind::Arithmetic)
    }

    fn term(&mut self) -> Fallible<Expr> {
        let operator = |kind: &Kind| match kind {
            Kind::Sign("*") => Some(Arithmetic::Mul),
            Kind::Sign("//") => Some(Arithmetic::FloorDiv),
            Kind::Sign("%") => Some(Arithmetic::Modulo),
            _ => None,
        };
        self.operations(operator, Self::unary, ExprKind::Arithmetic)
    }

    /// `operand {operator operand}`
    fn operations<O>(
        &mut self,
        operator: impl Fn(&Kind) -> Option<O>,
        operand: impl Fn(&mut Self) -> Fallible<Expr>,
        node: impl FnOnce(Box<Expr>, Vec<(O, Expr)>) -> ExprKind,
    ) -> Fallible<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(found) = operator(self.kind()) {
            self.advance();
            rest.push((found, operand(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expr { at: first.at, kind: node(Box::new(first), rest) })
    }

    fn unary(&mut self) -> Fallible<Expr> {
        let at = self.at();
        let operator = match self.kind() {
            Kind::Sign("-") => Unary::Minus,
            Kind::Sign("+") => Unary::Plus,
            Kind::Sign("~") => Unary::Run,
            _ => return self.power(),
        };
        self.advance();
        let operand = self.nested(Self::unary)?;
        Ok(Expr { at, kind: ExprKind::Unary(operator, Box::new(operand)) })
    }

    fn power(&mut self) -> Fallible<Expr> {
        let base = self.postfix()?;
        if !self.eat("**") {
            return Ok(base);
        }
        let exponent = self.nested(Self::unary)?;
        Ok(Expr { at: base.at, kind: ExprKind::Power(Box::new(base), Box::new(exponent)) })
    }

    fn postfix(&mut self) -> Fallible<Expr> {
        let base = self.atom()?;
        let mut suffixes = Vec::new();
        loop {
            let at = self.at();
            let kind = if self.eat(".") {
                let Kind::Name(name) = self.kind().clone() else {
                    return self.expected("a name after `.`");
                };
                self.advance();
                SuffixKind::Dot(name)
            } else if self.eat("(") {
                SuffixKind::Call(self.args()?)
            } else {
                break;
            };
            suffixes.push(Suffix { at, kind });
        }
        if suffixes.is_empty() {
            return Ok(base);
        }
        Ok(Expr { at: base.at, kind: ExprKind::Postfix(Box::new(base), suffixes) })
    }

    fn atom(&mut self) -> Fallible<Expr> {
        let at = self.at();
        let kind = match self.kind().clone() {
            Kind::Int(n) => ExprKind::Int(n),
            Kind::Float(x) => ExprKind::Float(x),
            Kind::Bytes(bytes) => ExprKind::Bytes(bytes),
            Kind::Str(text) => return Ok(self.strings(text)),
            Kind::Name(name) => match name.as_str() {
                "None" => ExprKind::None,
                "True" => ExprKind::Bool(true),
                "False" => ExprKind::Bool(false),
                name if RESERVED.contains(&name) => return fail(at, reserved(name)),
                _ => ExprKind::Name(name),
            },
            Kind::Sign("(") => return self.parenthesis(),
            Kind::Sign("[") => return self.list(),
            Kind::Sign("{") => return self.dict(),
            _ => return self.expected("an expression"),
        };
        self.advance();
        Ok(Expr { at, kind })
    }

    /// Adjacent string literals are one string.
    fn strings(&mut self, mut text: String) -> Expr {
        let at = self.at();
        self.advance();
        while let Kind::Str(more) = self.kind() {
            text.push_str(more);
            self.advance();
        }
        Expr { at, kind: ExprKind::Str(text) }
    }

    /// `()`, `(expr)`, `(a, b)` or `(expr for …)`.
    fn parenthesis(&mut self) -> Fallible<Expr> {
        let at = self.at();
        self.advance();
        if self.eat(")") {
            return Ok(Expr { at, kind: ExprKind::List(Vec::new()) });
        }
        let (first, is_generator) = self.generator()?;
        if self.eat(")") {
            return Ok(first);
        }
        if !self.is_sign(",") || is_generator {
            return self.expected("an operator, `,` or `)`");
        }
        self.items(at, first, ")")
    }

    /// `[]`, `[a, b]` or `[expr for …]`.
    fn list(&mut self) -> Fallible<Expr> {
        let at = self.at();
        self.advance();
        if self.eat("]") {
            return Ok(Expr { at, kind: ExprKind::List(Vec::new()) });
        }
        let (first, is_comprehension) = self.generator()?;
        if is_comprehension {
            self.need("]", "`for`, `if` or `]`")?;
            return Ok(first);
        }
        self.items(at, first, "]")
    }

    /// `, b, c]` after the first item.
    fn items(&mut self, at: Pos, first: Expr, closing: &str) -> Fallible<Expr> {
        let mut items = vec![first];
        while !self.eat(closing) {
            self.need(",", &format!("an operator, `,` or `{closing}`"))?;
            if self.eat(closing) {
                break;
            }
            items.push(self.expr()?);
        }
        Ok(Expr { at, kind: ExprKind::List(items) })
    }

    fn dict(&mut self) -> Fallible<Expr> {
        let at = self.at();
        self.advance();
        let mut pairs = Vec::new();
        while !self.eat("}") {
            let key = self.expr()?;
            self.need(":", "`:` and a value")?;
            pairs.push((key, self.expr()?));
            if !self.is_sign("}") {
                self.need(",", "an operator, `,` or `}`")?;
            }
        }
        Ok(Expr { at, kind: ExprKind::Dict(pairs) })
    }

    /// An expression, or a generator without its parentheses. The flag says which.
    fn generator(&mut self) -> Fallible<(Expr, bool)> {
        let element = self.expr()?;
        if !self.is_word("for") {
            return Ok((element, false));
        }
        let at = element.at;
        let mut clauses = Vec::new();
        while self.is_word("for") {
            self.advance();
            clauses.push(self.clause()?);
        }
        Ok((Expr { at, kind: ExprKind::Comprehension(Box::new(element), clauses) }, true))
    }

    fn clause(&mut self) -> Fallible<Clause> {
        let parenthesised = self.eat("(");
        let mut targets = vec![self.target()?];
        let mut unpack = false;
        while self.eat(",") {
            unpack = true;
            if matches!(self.kind(), Kind::Name(name) if is_plain_name(name)) {
                targets.push(self.target()?);
            }
        }
        if parenthesised {
            self.need(")", "`,` or `)` after the loop variables")?;
        }
        if !self.is_word("in") {
            return self.expected("`in` after the loop variable");
        }
        self.advance();
        let items = self.expr()?;
        let mut conditions = Vec::new();
        while self.is_word("if") {
            self.advance();
            conditions.push(self.expr()?);
        }
        Ok(Clause { targets, unpack, items, conditions })
    }

    fn target(&mut self) -> Fallible<String> {
        match self.kind().clone() {
            Kind::Name(name) if is_plain_name(&name) => {
                self.advance();
                Ok(name)
            }
            _ => self.expected("a loop variable after `for`"),
        }
    }

    /// The arguments of a call. The opening parenthesis was already read.
    fn args(&mut self) -> Fallible<Args> {
        let mut args = Args::default();
        while !self.eat(")") {
            self.arg(&mut args)?;
            if !self.is_sign(")") {
                self.need(",", "an operator, `,` or `)`")?;
            }
        }
        Ok(args)
    }

    fn arg(&mut self, args: &mut Args) -> Fallible<()> {
        let at = self.at();
        if self.is_sign("*") || self.is_sign("**") {
            return fail(at, self.unpacking());
        }
        if let (Kind::Name(name), Kind::Sign("=")) = (self.kind().clone(), &self.token(1).kind) {
            if !is_plain_name(&name) {
                return self.expected("the name of an argument");
            }
            if args.keywords.iter().any(|keyword| keyword.name == name) {
                return fail(at, format!("argument `{name}` is there twice"));
            }
            self.advance();
            self.advance();
            args.keywords.push(Keyword { at, name, value: self.expr()? });
            return Ok(());
        }
        if !args.keywords.is_empty() {
            return fail(at, "expected `name=value`: an argument without name follows one with a name");
        }
        let (value, is_generator) = self.generator()?;
        let alone = args.positional.is_empty() && self.is_sign(")");
        if is_generator && !alone {
            return fail(at, "a generator beside other arguments needs parentheses of its own");
        }
        args.positional.push(value);
        Ok(())
    }
}
