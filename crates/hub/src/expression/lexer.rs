//! Text to tokens.

use serde_json::{Number, Value};

use super::ExpressionError;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// Character offset.
    pub(super) at: usize,
    /// What it is.
    pub(super) kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A number or a text.
    Literal(Value),
    /// A name or a word such as `and`.
    Name(String),
    /// An operator or a bracket.
    Sign(&'static str),
    /// Behind the last one.
    End,
}

/// Longer signs come before the shorter ones that they begin with.
const SIGNS: [&str; 23] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ".", ":",
    "!",
];

/// Splits `text`; the last token is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let characters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { characters: &characters, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let end = token.kind == TokenKind::End;
        tokens.push(token);
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = &self.characters[self.at..];
        let taken: String = rest.iter().take_while(|character| wanted(**character)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn next(&mut self) -> Result<Token, ExpressionError> {
        self.take_while(char::is_whitespace);
        let at = self.at;
        let kind = match self.peek() {
            None => TokenKind::End,
            Some(quote @ ('"' | '\'')) => TokenKind::Literal(Value::String(self.text(quote)?)),
            Some(digit) if digit.is_ascii_digit() => TokenKind::Literal(self.number()?),
            Some(letter) if letter.is_alphabetic() || letter == '_' => {
                TokenKind::Name(self.take_while(|character| character.is_alphanumeric() || character == '_'))
            }
            Some(other) => TokenKind::Sign(self.sign(other)?),
        };
        Ok(Token { at, kind })
    }

    fn sign(&mut self, first: char) -> Result<&'static str, ExpressionError> {
        let rest = &self.characters[self.at..];
        let sign = SIGNS.into_iter().find(|sign| sign.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c)));
        let sign = sign.ok_or_else(|| ExpressionError::new(self.at, format!("unexpected character {first:?}")))?;
        self.at += sign.len();
        Ok(sign)
    }

    fn number(&mut self) -> Result<Value, ExpressionError> {
        let at = self.at;
        let mut text = self.take_while(|character| character.is_ascii_digit());
        let after_dot = self.characters.get(self.at + 1).copied();
        if self.peek() == Some('.') && after_dot.is_some_and(|character| character.is_ascii_digit()) {
            self.at += 1;
            text.push('.');
            text.push_str(&self.take_while(|character| character.is_ascii_digit()));
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            text.push('e');
            self.at += 1;
            if let Some(sign @ ('+' | '-')) = self.peek() {
                text.push(sign);
                self.at += 1;
            }
            text.push_str(&self.take_while(|character| character.is_ascii_digit()));
        }
        let invalid = || ExpressionError::new(at, format!("{text:?} is not a number that fits"));
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse::<i64>().map(Value::from).map_err(|_overflow| invalid());
        }
        let number = text.parse::<f64>().ok().and_then(Number::from_f64);
        number.map(Value::Number).ok_or_else(invalid)
    }

    fn text(&mut self, quote: char) -> Result<String, ExpressionError> {
        let begin = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let character =
                self.peek().ok_or_else(|| ExpressionError::new(begin, "text is not closed with its quote"))?;
            self.at += 1;
            match character {
                '\\' => text.push(self.escape(begin)?),
                end if end == quote => return Ok(text),
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self, begin: usize) -> Result<char, ExpressionError> {
        let at = self.at;
        let character = self.peek().ok_or_else(|| ExpressionError::new(begin, "text is not closed with its quote"))?;
        self.at += 1;
        Ok(match character {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '\\' | '\'' | '"' => character,
            other => {
                return Err(ExpressionError::new(at, format!("unknown escape \\{other}")));
            }
        })
    }
}
