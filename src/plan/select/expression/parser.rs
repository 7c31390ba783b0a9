//! Parses tokens into a typed syntax tree, by recursive descent.

use super::{
    ast::{Absent, Choice, Comparison, List, Number, Question, Text, Truth},
    fields::{self, Read},
    lexer::{Positioned, Token, tokens},
    pattern::{Pattern, Size},
    syntax_error::SyntaxError,
};

/// How deep an expression may be nested: brackets, `? :`, and chained calls. It bounds the stack of parsing,
/// evaluating, and dropping an expression.
const MAX_DEPTH: usize = 24;

type Parsed<T> = Result<T, SyntaxError>;

/// A value of any type.
enum Value {
    Truth(Truth),
    Text(Text),
    Number(Number),
    List(List),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Truth(_) => "a boolean",
            Self::Text(_) => "a string",
            Self::Number(_) => "an integer",
            Self::List(_) => "a list",
        }
    }
}

/// Parses a whole expression.
pub(super) fn parse(text: &str) -> Parsed<Truth> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        patterns: Size::default(),
    };
    if parser.peek() == &Token::End {
        return Err(SyntaxError::new(
            0,
            "the expression is empty: write a condition, such as device.os == 'linux'",
        ));
    }
    let value = parser.value(0)?;
    match parser.peek() {
        Token::End => truth(0, value),
        Token::Sign("+" | "-" | "*" | "/" | "%") => {
            Err(parser.error("arithmetic is not supported: compare fields with values"))
        }
        _ => Err(parser.error("expected an operator, such as && or ==, or the end")),
    }
}

struct Parser {
    tokens: Vec<Positioned>,
    next: usize,
    /// The size of all patterns so far.
    patterns: Size,
}

impl Parser {
    /// The current token. The last one is always [`Token::End`].
    fn current(&self) -> &Positioned {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &Token {
        &self.current().token
    }

    fn at(&self) -> usize {
        self.current().at
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn error(&self, why: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.at(), why)
    }

    fn eat(&mut self, sign: &'static str) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Parsed<()> {
        if self.eat(sign) {
            Ok(())
        } else {
            Err(self.error(format!("expected {sign}")))
        }
    }

    fn check_depth(&self, depth: usize) -> Parsed<()> {
        if depth < MAX_DEPTH {
            return Ok(());
        }
        Err(self.error(format!(
            "nested more than {MAX_DEPTH} levels deep: write fewer brackets"
        )))
    }

    /// `condition ? then : otherwise`, or a value alone.
    fn value(&mut self, depth: usize) -> Parsed<Value> {
        self.check_depth(depth)?;
        let start = self.at();
        let first = self.any(depth)?;
        if !self.eat("?") {
            return Ok(first);
        }
        let condition = truth(start, first)?;
        let then = self.value(depth + 1)?;
        self.expect(":")?;
        let at = self.at();
        let otherwise = self.value(depth + 1)?;
        choice(at, condition, then, otherwise)
    }

    fn any(&mut self, depth: usize) -> Parsed<Value> {
        self.joined(depth, "||", Self::all, Truth::Any)
    }

    fn all(&mut self, depth: usize) -> Parsed<Value> {
        self.joined(depth, "&&", Self::relation, Truth::All)
    }

    /// Any number of conditions with one operator between them.
    fn joined(
        &mut self,
        depth: usize,
        sign: &'static str,
        part: fn(&mut Self, usize) -> Parsed<Value>,
        join: fn(Vec<Truth>) -> Truth,
    ) -> Parsed<Value> {
        let at = self.at();
        let first = part(self, depth)?;
        if *self.peek() != Token::Sign(sign) {
            return Ok(first);
        }
        // One list, not a pair of pairs: a long row of conditions must not nest.
        let mut parts = vec![truth(at, first)?];
        while self.eat(sign) {
            let at = self.at();
            let next = part(self, depth)?;
            parts.push(truth(at, next)?);
        }
        Ok(Value::Truth(join(parts)))
    }

    fn relation(&mut self, depth: usize) -> Parsed<Value> {
        let left = self.unary(depth)?;
        let at = self.at();
        let is_in = *self.peek() == Token::Word("in".into());
        let how = self.comparison();
        if how.is_none() && !is_in {
            return Ok(left);
        }
        self.next += 1;
        let right = self.unary(depth)?;
        // CEL would compare the boolean of the first comparison with the third value, which nobody means.
        if self.comparison().is_some() {
            return Err(
                self.error("comparisons cannot be chained: write brackets, or && between them")
            );
        }
        let truth = match (left, how, right) {
            (Value::Text(text), None, Value::List(list)) => Truth::In(text, list),
            (left, None, right) => {
                let (left, right) = (left.kind(), right.kind());
                let why = format!("in: expected a string in a list, found {left} in {right}");
                return Err(SyntaxError::new(at, why));
            }
            (Value::Text(a), Some(how), Value::Text(b)) => Truth::Texts(a, how, b),
            (Value::Number(a), Some(how), Value::Number(b)) => Truth::Numbers(a, how, b),
            (Value::Truth(a), Some(how), Value::Truth(b)) => Truth::Truths(Box::new((a, b)), how),
            (
                Value::List(a),
                Some(how @ (Comparison::Equal | Comparison::Unequal)),
                Value::List(b),
            ) => Truth::Lists(a, how, b),
            (left, Some(_), right) => {
                let (left, right) = (left.kind(), right.kind());
                let why = format!("this operator cannot compare {left} with {right}");
                return Err(SyntaxError::new(at, why));
            }
        };
        Ok(Value::Truth(truth))
    }

    fn comparison(&self) -> Option<Comparison> {
        Some(match self.peek() {
            Token::Sign("==") => Comparison::Equal,
            Token::Sign("!=") => Comparison::Unequal,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn unary(&mut self, depth: usize) -> Parsed<Value> {
        // Counted, not nested: no row of ! can use up the stack.
        let mut negations = 0;
        while self.eat("!") {
            negations += 1;
        }
        let at = self.at();
        let value = self.member(depth)?;
        if negations == 0 {
            return Ok(value);
        }
        let truth = truth(at, value)?;
        Ok(Value::Truth(if negations % 2 == 1 {
            Truth::Not(Box::new(truth))
        } else {
            truth
        }))
    }

    /// A value and the methods that are called on it.
    fn member(&mut self, depth: usize) -> Parsed<Value> {
        let start = self.at();
        let mut value = self.primary(depth)?;
        // Each call wraps the value, so that a chain is as deep as brackets are.
        let mut calls = depth;
        while self.eat(".") {
            calls += 1;
            self.check_depth(calls)?;
            value = self.method(start, value, calls)?;
        }
        if *self.peek() == Token::Sign("[") {
            return Err(self.error("a list has no index: write 'tag:a' in device.tags"));
        }
        Ok(value)
    }

    /// `.name(…)` on a value.
    fn method(&mut self, start: usize, value: Value, depth: usize) -> Parsed<Value> {
        let at = self.at();
        let Token::Word(name) = self.take() else {
            return Err(SyntaxError::new(at, "expected the name of a function"));
        };
        if *self.peek() != Token::Sign("(") {
            return Err(SyntaxError::new(
                at,
                "only device has fields: write device.FIELD, or a function such as startsWith('…')",
            ));
        }
        self.next += 1;
        let called = match (&*name, value) {
            ("size", value) => Value::Number(size(start, value)?),
            ("lowerAscii", Value::Text(text)) => Value::Text(Text::Lower(Box::new(text))),
            ("startsWith" | "endsWith" | "contains" | "matches", Value::Text(text)) => {
                let question = self.question(&name, depth)?;
                Value::Truth(Truth::Asks(text, Box::new(question)))
            }
            ("startsWith" | "endsWith" | "contains" | "matches" | "lowerAscii", value) => {
                let why = format!("{name}: expected a string, found {}", value.kind());
                return Err(SyntaxError::new(start, why));
            }
            _ => return Err(SyntaxError::new(at, unknown_function(&name))),
        };
        self.expect(")")?;
        Ok(called)
    }

    fn question(&mut self, name: &str, depth: usize) -> Parsed<Question> {
        let at = self.at();
        let argument = match self.value(depth + 1)? {
            Value::Text(text) => text,
            other => {
                let why = format!("{name}: expected a string, found {}", other.kind());
                return Err(SyntaxError::new(at, why));
            }
        };
        Ok(match (name, argument) {
            ("startsWith", text) => Question::StartsWith(text),
            ("endsWith", text) => Question::EndsWith(text),
            ("contains", text) => Question::Contains(text),
            (_, Text::Literal(text)) => {
                let pattern = Pattern::parse(&text);
                let pattern = pattern.map_err(|why| SyntaxError::new(at, why.0))?;
                // All patterns together have one bound: many small ones take as much memory as a large one.
                self.patterns = self.patterns.plus(pattern.size());
                if let Some(excess) = self.patterns.excess("the patterns of this expression are") {
                    return Err(SyntaxError::new(at, excess));
                }
                Question::Matches(pattern, at)
            }
            // The size of a pattern that is computed, or that a machine reports, would have no bound.
            _ => {
                return Err(SyntaxError::new(
                    at,
                    "matches: expected a string in quotes, as in matches('^fra-')",
                ));
            }
        })
    }

    fn primary(&mut self, depth: usize) -> Parsed<Value> {
        let at = self.at();
        match self.take() {
            Token::Text(text) => Ok(Value::Text(Text::Literal(text))),
            Token::Number(number) => Ok(Value::Number(Number::Literal(number))),
            // Without arithmetic, only a literal can be negative.
            Token::Sign("-") => match self.take() {
                Token::Number(number) => Ok(Value::Number(Number::Literal(-number))),
                _ => Err(SyntaxError::new(
                    at,
                    "arithmetic is not supported: a minus must be before a number",
                )),
            },
            Token::Sign("(") => {
                let value = self.value(depth + 1)?;
                self.expect(")")?;
                Ok(value)
            }
            Token::Sign("[") => self.list(depth),
            Token::Word(word) => self.word(at, &word, depth),
            Token::End => Err(SyntaxError::new(
                at,
                "expected a value, but the expression ends",
            )),
            Token::Sign(_) => Err(SyntaxError::new(
                at,
                "expected a value, such as device.os or 'linux'",
            )),
        }
    }

    /// The rest of `[a, b]`.
    fn list(&mut self, depth: usize) -> Parsed<Value> {
        let mut items = Vec::new();
        // A comma after the last item is allowed, as in CEL.
        while !self.eat("]") {
            let at = self.at();
            match self.value(depth + 1)? {
                Value::Text(text) => items.push(text),
                other => {
                    let why = format!("expected a string in the list, found {}", other.kind());
                    return Err(SyntaxError::new(at, why));
                }
            }
            if !self.eat(",") && *self.peek() != Token::Sign("]") {
                return Err(self.error("expected , or ]"));
            }
        }
        Ok(Value::List(List::Literal(items)))
    }

    fn word(&mut self, at: usize, word: &str, depth: usize) -> Parsed<Value> {
        match word {
            "true" => Ok(Value::Truth(Truth::Literal(true))),
            "false" => Ok(Value::Truth(Truth::Literal(false))),
            "device" => {
                let (at, (field, read)) = self.field()?;
                Ok(match read {
                    Read::Text(read) => Value::Text(Text::Field(read)),
                    Read::Sometimes(read) => {
                        Value::Text(Text::Sometimes(read, Absent { at, field }))
                    }
                    Read::Flag(read) => Value::Truth(Truth::Field(read)),
                    Read::List(read) => Value::List(List::Field(read)),
                })
            }
            "has" => {
                self.expect("(")?;
                // As in CEL, a field and not its value: the value of an absent field would be an error.
                if self.take() != Token::Word("device".into()) {
                    return Err(SyntaxError::new(
                        at,
                        "has: expected a field, as in has(device.lastSeen)",
                    ));
                }
                let (_, (_, read)) = self.field()?;
                self.expect(")")?;
                Ok(Value::Truth(match read {
                    Read::Sometimes(read) => Truth::Has(read),
                    // Every device has it.
                    _ => Truth::Literal(true),
                }))
            }
            "size" => {
                self.expect("(")?;
                let start = self.at();
                let value = self.value(depth + 1)?;
                self.expect(")")?;
                Ok(Value::Number(size(start, value)?))
            }
            _ if *self.peek() == Token::Sign("(") => {
                Err(SyntaxError::new(at, unknown_function(word)))
            }
            _ => Err(SyntaxError::new(
                at,
                format!(
                    "unknown word '{word}': write a field as device.FIELD, and a string in quotes"
                ),
            )),
        }
    }

    /// The rest of `device.FIELD`, and where it begins.
    fn field(&mut self) -> Parsed<(usize, (&'static str, Read))> {
        self.expect(".")?;
        let at = self.at();
        let Token::Word(name) = self.take() else {
            return Err(SyntaxError::new(
                at,
                "expected the name of a field, as in device.hostname",
            ));
        };
        let found = fields::find(&name).map_err(|why| SyntaxError::new(at, why.0))?;
        Ok((at, found))
    }
}

fn unknown_function(name: &str) -> String {
    let known = "startsWith, endsWith, contains, matches, lowerAscii, size and has";
    if matches!(name, "all" | "exists" | "exists_one" | "map" | "filter") {
        return format!(
            "{name} iterates over a list, which is not supported: use {known}, or 'tag:a' in device.tags"
        );
    }
    format!("unknown function {name}: use one of {known}")
}

fn truth(at: usize, value: Value) -> Parsed<Truth> {
    match value {
        Value::Truth(truth) => Ok(truth),
        other => {
            let why = format!("expected a condition (a boolean), found {}", other.kind());
            Err(SyntaxError::new(at, why))
        }
    }
}

fn size(at: usize, value: Value) -> Parsed<Number> {
    match value {
        Value::Text(text) => Ok(Number::Letters(Box::new(text))),
        Value::List(list) => Ok(Number::Items(list)),
        other => {
            let why = format!("size: expected a list or a string, found {}", other.kind());
            Err(SyntaxError::new(at, why))
        }
    }
}

fn choice(at: usize, condition: Truth, then: Value, otherwise: Value) -> Parsed<Value> {
    macro_rules! chosen {
        ($kind:ident, $then:ident, $otherwise:ident) => {
            Value::$kind($kind::Choice(Box::new(Choice {
                condition,
                then: $then,
                otherwise: $otherwise,
            })))
        };
    }
    Ok(match (then, otherwise) {
        (Value::Truth(a), Value::Truth(b)) => chosen!(Truth, a, b),
        (Value::Text(a), Value::Text(b)) => chosen!(Text, a, b),
        (Value::Number(a), Value::Number(b)) => chosen!(Number, a, b),
        (Value::List(a), Value::List(b)) => chosen!(List, a, b),
        (then, otherwise) => {
            let (then, otherwise) = (then.kind(), otherwise.kind());
            let why =
                format!("both values of ? : must have the same type: found {then} and {otherwise}");
            return Err(SyntaxError::new(at, why));
        }
    })
}
