//! Splits a text into tokens. Handles prompts, comments, line ends, brackets and literals.

use std::fmt;
use std::str::Chars;

use crate::ast::{Fallible, Pos, fail};
use crate::{NESTING_MAX, SOURCE_BYTES_MAX};

/// One token and its position.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) at: Pos,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Name(String),
    Int(u64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Sign(&'static str),
    EndOfLine,
    EndOfText,
}

/// For "found …" in an error message.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Name(name) => write!(f, "`{name}`"),
            Kind::Int(n) => write!(f, "the number {n}"),
            Kind::Float(x) => write!(f, "the number {x:?}"),
            Kind::Str(_) => f.write_str("a string"),
            Kind::Bytes(_) => f.write_str("bytes"),
            Kind::Sign(sign) => write!(f, "`{sign}`"),
            Kind::EndOfLine => f.write_str("the end of the line"),
            Kind::EndOfText => f.write_str("the end of the text"),
        }
    }
}

/// Longer signs come before their own prefixes.
const SIGNS: [&str; 24] = [
    "**", "//", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "=", "+", "-", "*", "%", "|", "~",
    "<", ">",
];

/// The tokens of a text; the last one is always [`Kind::EndOfText`].
pub(crate) fn tokens(source: &str) -> Fallible<Vec<Token>> {
    if source.len() > SOURCE_BYTES_MAX {
        return fail(Pos { line: 1, column: 1 }, format!("the text is longer than {SOURCE_BYTES_MAX} bytes"));
    }
    let mut lexer = Lexer::default();
    let is_session = source.lines().any(|line| line.trim_start().starts_with(">>>"));
    let mut in_code = false;
    for (index, line) in source.lines().enumerate() {
        let prompt = if is_session { prompt_len(line, in_code) } else { Some(0) };
        in_code = prompt.is_some();
        if let Some(prompt) = prompt {
            let column = line[..prompt].chars().count() + 1;
            lexer.line(Pos { line: index + 1, column }, &line[prompt..], line.trim_start().starts_with(">>>"))?;
        }
    }
    lexer.finish(source)
}

/// Length in bytes of the prompt at the start of a line. `None` if the line is output of the session. `...` is a prompt
/// only right after code.
fn prompt_len(line: &str, after_code: bool) -> Option<usize> {
    let text = line.trim_start();
    let is_code = text.starts_with(">>>") || (after_code && text.starts_with("..."));
    is_code.then_some(line.len() - text.len() + 3)
}

#[derive(Default)]
struct Lexer {
    tokens: Vec<Token>,
    /// Open brackets, innermost last.
    open: Vec<(&'static str, Pos)>,
    /// Whether the line ended with `\`.
    continued: bool,
}

/// The rest of a line, counting columns.
#[derive(Clone)]
struct Cursor<'a> {
    at: Pos,
    rest: Chars<'a>,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.at.column += 1;
        self.rest.next()
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|c| accept(*c)) {
            self.next();
            taken.push(c);
        }
        taken
    }
}

impl Lexer {
    fn push(&mut self, at: Pos, kind: Kind) {
        self.tokens.push(Token { at, kind });
    }

    fn line(&mut self, at: Pos, text: &str, starts_statement: bool) -> Fallible<()> {
        if let (true, Some(&(bracket, at))) = (starts_statement, self.open.last()) {
            let closing = closing(bracket);
            return fail(at, format!("`{bracket}` is never closed: expected `{closing}` before the next `>>>`"));
        }
        self.continued = false;
        let mut cursor = Cursor { at, rest: text.chars() };
        while let Some(c) = cursor.peek() {
            match c {
                '#' => break,
                '\\' if cursor.rest.as_str() == "\\" => {
                    self.continued = true;
                    break;
                }
                c if c.is_whitespace() => {
                    cursor.next();
                }
                _ => self.token(&mut cursor)?,
            }
        }
        if self.open.is_empty() && !self.continued {
            self.push(cursor.at, Kind::EndOfLine);
        }
        Ok(())
    }

    fn token(&mut self, cursor: &mut Cursor<'_>) -> Fallible<()> {
        let at = cursor.at;
        let mut ahead = cursor.rest.clone();
        let (first, second) = (ahead.next().unwrap_or(' '), ahead.next().unwrap_or(' '));
        let kind = if let Some(prefix) = string_prefix(cursor.rest.as_str()) {
            string(cursor, prefix)?
        } else if is_formatted_string(cursor.rest.as_str()) {
            return fail(at, "f-strings are not supported: write the text itself, or join texts with `+`");
        } else if first.is_alphabetic() || first == '_' {
            Kind::Name(cursor.take_while(is_name_char))
        } else if first.is_ascii_digit() || (first == '.' && second.is_ascii_digit()) {
            number(cursor)?
        } else if first == ';' {
            cursor.next();
            Kind::EndOfLine
        } else {
            self.sign(cursor)?
        };
        self.push(at, kind);
        Ok(())
    }

    fn sign(&mut self, cursor: &mut Cursor<'_>) -> Fallible<Kind> {
        let at = cursor.at;
        let Some(sign) = SIGNS.into_iter().find(|sign| cursor.rest.as_str().starts_with(sign)) else {
            let hint = match cursor.peek() {
                Some('/') => "`/` is not supported: use `//`, or compute in a function".to_string(),
                Some(c @ ('“' | '”' | '‘' | '’')) => format!("`{c}` is not a quote: use \" or '"),
                c => format!("expected an expression, found `{}`", c.unwrap_or(' ').escape_debug()),
            };
            return fail(at, hint);
        };
        match sign {
            "(" | "[" | "{" if self.open.len() == NESTING_MAX => {
                return fail(at, format!("brackets are nested deeper than {NESTING_MAX} levels"));
            }
            "(" | "[" | "{" => self.open.push((sign, at)),
            ")" => self.close("(", sign, at)?,
            "]" => self.close("[", sign, at)?,
            "}" => self.close("{", sign, at)?,
            _ => {}
        }
        (0..sign.len()).for_each(|_| {
            cursor.next();
        });
        Ok(Kind::Sign(sign))
    }

    fn close(&mut self, opening: &str, closing: &str, at: Pos) -> Fallible<()> {
        match self.open.pop() {
            Some((bracket, _)) if bracket == opening => Ok(()),
            Some((bracket, Pos { line, column })) => {
                fail(at, format!("`{closing}` does not close the `{bracket}` of line {line}, column {column}"))
            }
            None => fail(at, format!("`{closing}` closes nothing: there is no `{opening}` before it")),
        }
    }

    fn finish(mut self, source: &str) -> Fallible<Vec<Token>> {
        if let Some((bracket, at)) = self.open.pop() {
            let closing = closing(bracket);
            return fail(at, format!("`{bracket}` is never closed: expected `{closing}` before the end of the text"));
        }
        let line = source.lines().count().max(1);
        let column = source.lines().last().map_or(1, |line| line.trim_end().chars().count() + 1);
        self.push(Pos { line, column }, Kind::EndOfText);
        Ok(self.tokens)
    }
}

fn closing(bracket: &str) -> &'static str {
    match bracket {
        "(" => ")",
        "[" => "]",
        _ => "}",
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The prefix of a string literal, if one starts here.
fn string_prefix(rest: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 6] = ["", "rb", "br", "r", "b", "u"];
    PREFIXES.into_iter().find(|prefix| {
        let head = rest.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        head && rest[prefix.len()..].starts_with(['"', '\''])
    })
}

/// Whether an f-string starts here: `f"{x}"`, `rf'…'`. Python would evaluate it, so it is an error.
fn is_formatted_string(rest: &str) -> bool {
    ["f", "fr", "rf"].into_iter().any(|prefix| {
        let head = rest.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        head && rest[prefix.len()..].starts_with(['"', '\''])
    })
}

fn string(cursor: &mut Cursor<'_>, prefix: &str) -> Fallible<Kind> {
    let start = cursor.at;
    (0..prefix.len()).for_each(|_| {
        cursor.next();
    });
    let quote = cursor.next().unwrap_or('"');
    if cursor.rest.as_str().starts_with(&format!("{quote}{quote}")) {
        return fail(start, format!("strings with three quotes are not supported: use {quote}…{quote} and \\n"));
    }
    let (raw, bytes) = (prefix.contains('r'), prefix.contains('b'));
    let mut text = String::new();
    loop {
        let at = cursor.at;
        match cursor.next() {
            None => {
                return fail(start, format!("the string is not closed: expected {quote} before the end of the line"));
            }
            Some(c) if c == quote => break,
            Some('\\') if raw => {
                text.push('\\');
                text.extend(cursor.next());
            }
            Some('\\') => text.push(escape(cursor, at, bytes)?),
            Some(c) if bytes && !c.is_ascii() => return fail(at, "bytes hold ASCII and \\xNN only"),
            Some(c) => text.push(c),
        }
    }
    if !bytes {
        return Ok(Kind::Str(text));
    }
    // Escapes in bytes end at \xff.
    Ok(Kind::Bytes(text.chars().map(|c| c as u8).collect()))
}

fn escape(cursor: &mut Cursor<'_>, at: Pos, bytes: bool) -> Fallible<char> {
    let Some(c) = cursor.next() else {
        return fail(at, "the string is not closed: a line ends with `\\`");
    };
    let digits = match c {
        '\\' | '\'' | '"' => return Ok(c),
        'n' => return Ok('\n'),
        't' => return Ok('\t'),
        'r' => return Ok('\r'),
        '0' => return Ok('\0'),
        'x' => 2,
        'u' if !bytes => 4,
        'U' if !bytes => 8,
        c => return fail(at, format!("unknown escape `\\{}`: write `\\\\` for a backslash", c.escape_debug())),
    };
    let hex: String = (0..digits).map_while(|_| cursor.next()).collect();
    let all_hex = hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let code = u32::from_str_radix(&hex, 16).ok().filter(|_| all_hex).and_then(char::from_u32);
    code.map_or_else(|| fail(at, format!("`\\{c}` needs {digits} hexadecimal digits of a code point")), Ok)
}

fn number(cursor: &mut Cursor<'_>) -> Fallible<Kind> {
    let at = cursor.at;
    let mut lookahead = cursor.rest.clone();
    let base = match (lookahead.next(), lookahead.next().map(|c| c.to_ascii_lowercase())) {
        (Some('0'), Some('x')) => 16,
        (Some('0'), Some('o')) => 8,
        (Some('0'), Some('b')) => 2,
        _ => 10,
    };
    let mut text = cursor.take_while(is_name_char);
    if base == 10 {
        fraction(cursor, &mut text);
    }
    let digits = text.replace('_', "");
    let is_written_well = underscores_separate_digits(&text, base);
    let parsed = if !is_written_well {
        None
    } else if base != 10 {
        u64::from_str_radix(&digits[2..], base).ok().map(Kind::Int)
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        digits.parse().ok().filter(|_| !leading_zero).map(Kind::Int)
    } else {
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        digits.parse().ok().filter(|_| plain).map(Kind::Float)
    };
    if let Some(kind) = parsed {
        return Ok(kind);
    }
    let is_integer = is_written_well && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let reason = if is_integer { "does not fit in 64 bits" } else { "is not a number" };
    fail(at, format!("`{}` {reason}", text.chars().take(40).collect::<String>()))
}

/// Python's rule: an underscore must be between two digits, or follow the prefix of a base.
fn underscores_separate_digits(text: &str, base: u32) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(|byte| char::from(*byte).is_digit(base));
    let is_prefix = |at: usize| base != 10 && at == 1;
    let separates = |at: usize| at > 0 && (is_digit(at - 1) || is_prefix(at - 1)) && is_digit(at + 1);
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || separates(at))
}

/// The rest of a float after its leading digits: `.5`, `e-3`.
fn fraction(cursor: &mut Cursor<'_>, text: &mut String) {
    if cursor.peek() == Some('.') {
        cursor.next();
        text.push('.');
        text.push_str(&cursor.take_while(is_name_char));
    }
    if text.ends_with(['e', 'E']) && cursor.peek().is_some_and(|c| c == '+' || c == '-') {
        text.extend(cursor.next());
        text.push_str(&cursor.take_while(is_name_char));
    }
}
