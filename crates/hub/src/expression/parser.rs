//! Tokens to a tree, by recursive descent with a limit on nesting.

use serde_json::Value;

use super::ExpressionError;
use super::ast::{Kind, Node, Operator};
use super::lexer::{Token, TokenKind};

/// Deepest nesting of brackets and prefixes.
const DEEPEST: usize = 32;

/// Most operators in one expression. A row of them makes a tree as deep as the row is long, and evaluation recurses.
const MOST_OPERATORS: usize = 128;

/// Reads a whole expression.
pub(super) fn parse(tokens: &[Token]) -> Result<Node, ExpressionError> {
    let mut parser = Parser { tokens, next: 0, depth: 0, operators: 0 };
    let node = parser.expression()?;
    match &parser.peek().kind {
        TokenKind::End => Ok(node),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    operators: usize,
}

impl Parser<'_> {
    /// The lexer ends every list of tokens with [`TokenKind::End`], which is never passed.
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn at(&self) -> usize {
        self.peek().at
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(&self.peek().kind, TokenKind::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(&self.peek().kind, TokenKind::Name(found) if found == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ExpressionError> {
        if self.sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("{sign:?}"))) }
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        let found = match &self.peek().kind {
            TokenKind::End => "the end".to_owned(),
            TokenKind::Sign(sign) => format!("{sign:?}"),
            TokenKind::Name(name) => format!("{name:?}"),
            TokenKind::Literal(literal) => literal.to_string(),
        };
        ExpressionError::new(self.at(), format!("expected {wanted}, found {found}"))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ExpressionError>) -> Result<T, ExpressionError> {
        if self.depth >= DEEPEST {
            return Err(ExpressionError::new(self.at(), format!("nested deeper than {DEEPEST} levels")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<Node, ExpressionError> {
        self.nested(|parser| {
            let mut left = parser.conjunction()?;
            while parser.word("or") || parser.sign("||") {
                parser.count()?;
                let right = parser.conjunction()?;
                left = Node { at: left.at, kind: Kind::Or(Box::new(left), Box::new(right)) };
            }
            Ok(left)
        })
    }

    fn conjunction(&mut self) -> Result<Node, ExpressionError> {
        let mut left = self.negation()?;
        while self.word("and") || self.sign("&&") {
            self.count()?;
            let right = self.negation()?;
            left = Node { at: left.at, kind: Kind::And(Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn count(&mut self) -> Result<(), ExpressionError> {
        self.operators += 1;
        if self.operators > MOST_OPERATORS {
            return Err(ExpressionError::new(self.at(), format!("more than {MOST_OPERATORS} operators")));
        }
        Ok(())
    }

    fn negation(&mut self) -> Result<Node, ExpressionError> {
        let at = self.at();
        if self.word("not") || self.sign("!") {
            let operand = self.nested(Self::negation)?;
            return Ok(Node { at, kind: Kind::Not(Box::new(operand)) });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        let left = self.sum()?;
        let at = self.at();
        let Some(operator) = self.comparator()? else {
            return Ok(left);
        };
        let right = self.sum()?;
        if self.comparator()?.is_some() {
            return Err(ExpressionError::new(at, "comparisons cannot be chained, join them with `and`"));
        }
        Ok(Node { at, kind: Kind::Binary(operator, Box::new(left), Box::new(right)) })
    }

    fn comparator(&mut self) -> Result<Option<Operator>, ExpressionError> {
        const SIGNS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        if let Some((_, operator)) = SIGNS.into_iter().find(|(sign, _)| self.sign(sign)) {
            return Ok(Some(operator));
        }
        if self.word("in") {
            return Ok(Some(Operator::In));
        }
        if self.word("not") {
            return if self.word("in") { Ok(Some(Operator::NotIn)) } else { Err(self.unexpected("`in`")) };
        }
        Ok(None)
    }

    fn sum(&mut self) -> Result<Node, ExpressionError> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<Node, ExpressionError> {
        let signs = [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.chain(&signs, Self::prefix)
    }

    fn chain(
        &mut self,
        signs: &[(&str, Operator)],
        operand: impl Fn(&mut Self) -> Result<Node, ExpressionError>,
    ) -> Result<Node, ExpressionError> {
        let mut left = operand(self)?;
        loop {
            let at = self.at();
            let Some((_, operator)) = signs.iter().find(|(sign, _)| self.sign(sign)) else {
                return Ok(left);
            };
            self.count()?;
            let right = operand(self)?;
            left = Node { at, kind: Kind::Binary(*operator, Box::new(left), Box::new(right)) };
        }
    }

    fn prefix(&mut self) -> Result<Node, ExpressionError> {
        let at = self.at();
        if self.sign("-") {
            let operand = self.nested(Self::prefix)?;
            return Ok(Node { at, kind: Kind::Negate(Box::new(operand)) });
        }
        let mut node = self.primary()?;
        loop {
            if self.sign(".") {
                node = Node { at: node.at, kind: Kind::Field(Box::new(node), self.field()?) };
            } else if self.sign("[") {
                let index = self.expression()?;
                self.expect("]")?;
                node = Node { at: node.at, kind: Kind::Index(Box::new(node), Box::new(index)) };
            } else {
                return Ok(node);
            }
            self.count()?;
        }
    }

    /// Behind a dot every word is a name, and a number is an index.
    fn field(&mut self) -> Result<String, ExpressionError> {
        let name = match &self.peek().kind {
            TokenKind::Name(name) => name.clone(),
            TokenKind::Literal(Value::Number(number)) if number.is_u64() => number.to_string(),
            _ => return Err(self.unexpected("a field name")),
        };
        self.next += 1;
        Ok(name)
    }

    fn primary(&mut self) -> Result<Node, ExpressionError> {
        let at = self.at();
        let kind = match self.peek().kind.clone() {
            TokenKind::Literal(value) => {
                self.next += 1;
                Kind::Literal(value)
            }
            TokenKind::Name(name) => {
                self.next += 1;
                self.named(name, at)?
            }
            TokenKind::Sign("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                inner.kind
            }
            TokenKind::Sign("[") => {
                self.next += 1;
                Kind::List(self.list("]")?)
            }
            TokenKind::Sign("{") => {
                self.next += 1;
                Kind::Object(self.object()?)
            }
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, kind })
    }

    fn named(&mut self, name: String, at: usize) -> Result<Kind, ExpressionError> {
        Ok(match name.as_str() {
            "true" | "True" => Kind::Literal(Value::Bool(true)),
            "false" | "False" => Kind::Literal(Value::Bool(false)),
            "null" | "None" | "none" => Kind::Literal(Value::Null),
            "and" | "or" | "in" | "not" => {
                return Err(ExpressionError::new(at, format!("expected a value, found {name:?}")));
            }
            _ if self.sign("(") => Kind::Call(name, self.list(")")?),
            _ => Kind::Variable(name),
        })
    }

    /// Values up to `end`, whose opening bracket was taken; a comma before the end is allowed.
    fn list(&mut self, end: &str) -> Result<Vec<Node>, ExpressionError> {
        let mut items = Vec::new();
        while !self.sign(end) {
            items.push(self.expression()?);
            if !self.sign(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn object(&mut self) -> Result<Vec<(Node, Node)>, ExpressionError> {
        let mut entries = Vec::new();
        while !self.sign("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.sign(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }
}
