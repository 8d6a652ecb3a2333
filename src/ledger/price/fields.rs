//! Fields of a TOML table, taken one by one, each with its path; what is left at the end is unknown.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::BookError;

/// A table of a book and where it stands.
pub(super) struct Fields<'a, 'i> {
    path: String,
    table: &'a DeTable<'i>,
    taken: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    pub(super) fn new(path: impl Into<String>, table: &'a DeTable<'i>) -> Self {
        Self { path: path.into(), table, taken: Vec::new() }
    }

    /// The path of one of its fields.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A refusal of one of its fields.
    pub(super) fn refuse(&self, name: &str, value: &str, rule: &str) -> BookError {
        refuse(self.path(name), value, rule)
    }

    fn take(&mut self, name: &'static str) -> Option<&'a DeValue<'i>> {
        self.taken.push(name);
        self.table.get(name).map(Spanned::get_ref)
    }

    /// A word, a number or a date, as it is written.
    pub(super) fn text(&mut self, name: &'static str, rule: &str) -> Result<Option<String>, BookError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match scalar(value) {
            Some(text) => Ok(Some(text)),
            None => Err(self.refuse(name, value.type_str(), rule)),
        }
    }

    /// The same, which must be there.
    pub(super) fn required(&mut self, name: &'static str, rule: &str) -> Result<String, BookError> {
        self.text(name, rule)?.ok_or_else(|| self.refuse(name, "missing", rule))
    }

    /// A table in it.
    pub(super) fn table(&mut self, name: &'static str) -> Result<Option<&'a DeTable<'i>>, BookError> {
        match self.take(name) {
            None => Ok(None),
            Some(DeValue::Table(table)) => Ok(Some(table)),
            Some(other) => Err(self.refuse(name, other.type_str(), "a table")),
        }
    }

    /// A list of at least one table in it, each with its path.
    pub(super) fn tables(&mut self, name: &'static str) -> Result<Vec<(String, &'a DeTable<'i>)>, BookError> {
        let rule = "a list of at least one table";
        let found = match self.take(name) {
            Some(DeValue::Array(found)) if !found.is_empty() => found,
            Some(other) => return Err(self.refuse(name, other.type_str(), rule)),
            None => return Err(self.refuse(name, "missing", rule)),
        };
        let entry = |(at, value): (usize, &'a Spanned<DeValue<'i>>)| {
            let path = format!("{}[{at}]", self.path(name));
            match value.get_ref() {
                DeValue::Table(table) => Ok((path, table)),
                other => Err(refuse(path, other.type_str(), "a table")),
            }
        };
        found.iter().enumerate().map(entry).collect()
    }

    /// A list of at least one word in it.
    pub(super) fn words(&mut self, name: &'static str, rule: &str) -> Result<Vec<String>, BookError> {
        match self.take(name) {
            Some(DeValue::Array(found)) if !found.is_empty() => {
                let word = |value: &Spanned<DeValue<'i>>| {
                    scalar(value.get_ref()).ok_or_else(|| self.refuse(name, value.get_ref().type_str(), rule))
                };
                found.iter().map(word).collect()
            }
            Some(DeValue::Array(_)) => Err(self.refuse(name, "empty", rule)),
            Some(other) => Err(self.refuse(name, other.type_str(), rule)),
            None => Err(self.refuse(name, "missing", rule)),
        }
    }

    /// Refuses what nobody took.
    pub(super) fn end(self) -> Result<(), BookError> {
        match self.table.keys().find(|key| !self.taken.contains(&key.get_ref().as_ref())) {
            Some(key) => Err(self.refuse(key.get_ref(), "unknown", &format!("one of {}", self.taken.join(", ")))),
            None => Ok(()),
        }
    }
}

/// A refusal of the field at `path`.
pub(super) fn refuse(path: impl Into<String>, value: &str, rule: &str) -> BookError {
    BookError::Field { field: path.into(), value: value.chars().take(80).collect(), rule: rule.to_owned() }
}

/// Numbers keep their digits: a price is never a float.
pub(super) fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Boolean(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
