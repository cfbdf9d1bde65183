//! Encryption contexts of rows: templates over the columns of a table.

use dekseal::{EncryptionContext, Error};

use super::row::{Cell, Problem};
use crate::failure::Failure;

/// The pairs of an encryption context whose values name columns: `tenant={tenant_id}`.
#[derive(Debug, PartialEq)]
pub(crate) struct Template {
    pairs: Vec<(String, Vec<Piece>)>,
    columns: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Literal(String),
    /// The position of a column in `columns`.
    Column(usize),
}

impl Template {
    /// Parses the values of the pairs. `{name}` is the value of a column, `{{` and `}}` are braces.
    pub(crate) fn parse(pairs: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut columns = Vec::new();
        let parsed = pairs.into_iter().map(|(key, value)| {
            let pieces = pieces(&value, &mut columns).map_err(|problem| {
                Failure::usage(format!(
                    "--context {key}={value}: {problem}; write {{COLUMN}} for the value of a column, and {{{{ for a \
                     brace"
                ))
            })?;
            Ok((key, pieces))
        });
        let pairs = parsed.collect::<Result<Vec<_>, Failure>>()?;
        // A context that no row could have is refused before any row is read.
        EncryptionContext::from_pairs(pairs.iter().map(|(key, _)| (key.as_str(), "")))?;
        Ok(Self { pairs, columns })
    }

    /// The columns that the templates name, each once.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The context of a row, from the values of the columns in the order of [`columns`](Self::columns).
    pub(crate) fn context(&self, cells: &[Cell]) -> Result<EncryptionContext, Problem> {
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for (key, pieces) in &self.pairs {
            let mut value = String::new();
            for piece in pieces {
                match piece {
                    Piece::Literal(text) => value.push_str(text),
                    Piece::Column(at) => {
                        let name = self.columns.get(*at).map_or("", String::as_str);
                        match cells.get(*at) {
                            Some(Cell::Text(text)) => value.push_str(text),
                            Some(Cell::Unfit(kind)) => {
                                return Err(Problem::new(format!("the column {name} of the context is {kind}")));
                            }
                            Some(Cell::Null) | None => {
                                return Err(Problem::new(format!("the column {name} of the context is NULL")));
                            }
                        }
                    }
                }
            }
            pairs.push((key.as_str(), value));
        }
        EncryptionContext::from_pairs(pairs).map_err(|error: Error| Problem::of(&error))
    }
}

fn pieces(value: &str, columns: &mut Vec<String>) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = value.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '{' | '}' if rest.next_if_eq(&character).is_some() => literal.push(character),
            '{' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some('{') | None => return Err("a brace is not closed"),
                        Some(character) => name.push(character),
                    }
                }
                if name.is_empty() {
                    return Err("braces name no column");
                }
                let at = columns.iter().position(|column| *column == name).unwrap_or_else(|| {
                    columns.push(name);
                    columns.len().saturating_sub(1)
                });
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Column(at));
            }
            '}' => return Err("a brace is not opened"),
            character => literal.push(character),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(pairs: &[(&str, &str)]) -> Result<Template, Failure> {
        Template::parse(
            pairs
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
        )
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn columns_take_their_places() {
        let template = template(&[("a", "x{one}{two}y{one}"), ("b", "{{{two}}}"), ("c", "plain")]).unwrap();
        assert_eq!(template.columns(), ["one", "two"]);
        let context = template.context(&[text("1"), text("{2}")]).unwrap();
        let expected = EncryptionContext::from_pairs([("a", "x1{2}y1"), ("b", "{{2}}"), ("c", "plain")]).unwrap();
        assert_eq!(context, expected);
    }

    #[test]
    fn a_column_without_a_text_is_a_problem_of_the_row() {
        let template = template(&[("a", "{one}")]).unwrap();
        let null = template.context(&[Cell::Null]).unwrap_err();
        assert_eq!(null.to_string(), "the column one of the context is NULL");
        let real = template.context(&[Cell::Unfit("a real number")]).unwrap_err();
        assert_eq!(real.to_string(), "the column one of the context is a real number");
        let long = template.context(&[text(&"x".repeat(9000))]).unwrap_err();
        assert_eq!(long.to_string(), "encryption context: more than 8192 characters");
    }

    #[test]
    fn templates_that_mean_nothing_are_refused() {
        for refused in ["{", "}", "{a", "a}", "{}", "{a{b}", "{a}}", "{{a}"] {
            assert!(template(&[("k", refused)]).is_err(), "{refused}");
        }
        assert!(template(&[("k", "a"), ("k", "b")]).is_err());
        assert!(template(&[("", "a")]).is_err());
    }
}
