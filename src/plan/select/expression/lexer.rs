//! Splits an expression into tokens.

use super::syntax_error::SyntaxError;

/// A token of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword such as `in`.
    Word(String),
    /// The text between quotes.
    Text(String),
    /// An integer, without a sign.
    Number(i64),
    /// An operator or a bracket.
    Sign(&'static str),
    /// The end of the expression.
    End,
}

/// A token and where it begins, counted in characters.
#[derive(Debug, Clone)]
pub(super) struct Positioned {
    pub at: usize,
    pub token: Token,
}

/// Longer operators before their prefixes.
const SIGNS: [&str; 22] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ".", ",", "?", ":", "+",
    "-", "*", "/", "%",
];

/// Splits an expression into tokens, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Positioned>, SyntaxError> {
    // Letters, not bytes: the positions in errors are for people.
    let letters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer {
        letters: &letters,
        at: 0,
    };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.next()?;
        let ended = token == Token::End;
        tokens.push(Positioned { at, token });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    letters: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn starts_with(&self, sign: &str) -> bool {
        let rest = self.letters[self.at..].iter().copied();
        sign.chars().eq(rest.take(sign.len()))
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = self.letters[self.at..].iter().copied();
        let taken: String = rest.take_while(|letter| wanted(*letter)).collect();
        self.at += taken.chars().count();
        taken
    }

    /// Skips white space, and comments from `//` to the end of the line.
    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|letter| matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if !self.starts_with("//") {
                return;
            }
            self.take_while(|letter| letter != '\n');
        }
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        let Some(first) = self.peek() else {
            return Ok(Token::End);
        };
        match first {
            // A raw string, such as r'\d'. Before names, which can begin with an r too.
            'r' | 'R' if matches!(self.letters.get(self.at + 1), Some('\'' | '"')) => {
                self.at += 1;
                self.text(true)
            }
            '\'' | '"' => self.text(false),
            '0'..='9' => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => {
                Ok(Token::Word(self.take_while(|letter| {
                    letter.is_ascii_alphanumeric() || letter == '_'
                })))
            }
            _ => self.sign(),
        }
    }

    fn sign(&mut self) -> Result<Token, SyntaxError> {
        let Some(sign) = SIGNS.into_iter().find(|sign| self.starts_with(sign)) else {
            let why = match self.peek() {
                Some('=') => "a single = compares nothing: write ==",
                Some('&') => "a single & joins nothing: write &&",
                Some('|') => "a single | joins nothing: write ||",
                _ => "unexpected character",
            };
            return Err(SyntaxError::new(self.at, why));
        };
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        // Letters too, so that 0x1F and 5u of CEL are an error as a whole.
        let digits = self.take_while(|letter| letter.is_ascii_alphanumeric());
        let fraction = self.peek() == Some('.');
        match digits.parse() {
            Ok(number) if !fraction => Ok(Token::Number(number)),
            _ => Err(SyntaxError::new(
                start,
                "a number must be an integer and consist of digits only: write one such as 42",
            )),
        }
    }

    fn text(&mut self, raw: bool) -> Result<Token, SyntaxError> {
        let start = self.at;
        let quote = self.peek().unwrap_or_default();
        // Before the empty string, which the first two quotes would be.
        if self.starts_with(&String::from(quote).repeat(3)) {
            let why = "a string must be on one line: write it between single quotes, as in 'fra'";
            return Err(SyntaxError::new(start, why));
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\n' | '\r') => {
                    return Err(SyntaxError::new(
                        start,
                        "the string has no end: write the closing quote",
                    ));
                }
                Some(letter) if letter == quote => {
                    self.at += 1;
                    return Ok(Token::Text(text));
                }
                Some('\\') if !raw => text.push(self.escaped()?),
                Some(letter) => {
                    text.push(letter);
                    self.at += 1;
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let at = self.at;
        self.at += 2;
        match self.letters.get(at + 1) {
            Some(letter @ ('\\' | '\'' | '"' | '`' | '?')) => Ok(*letter),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            _ => Err(SyntaxError::new(
                at,
                r"unknown escape: write one of \\ \' \n and \t, or a raw string as in r'\d'",
            )),
        }
    }
}
