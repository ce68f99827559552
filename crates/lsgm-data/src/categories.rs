use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DataError, Result, TextTable};

/// The values that occur in each column of a table, in alphabetical order: their places are the ids that a model works
/// with.
///
/// ```
/// use lsgm_data::{Categories, TextTable};
///
/// let columns = vec![vec!["cat".to_owned(), "parrot".to_owned()], vec!["4".to_owned(), "2".to_owned()]];
/// let table = TextTable { names: vec!["animal".to_owned(), "legs".to_owned()], columns };
/// let categories = Categories::of(&table);
/// assert_eq!(categories.sizes(), [2, 2]);
/// let rows = categories.encode(&table, "pets.csv".as_ref()).unwrap();
/// assert_eq!(rows, [[0, 1], [1, 0]]);
/// assert_eq!(categories.decode(&rows), table);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Categories {
    names: Vec<String>,
    values: Vec<Vec<String>>,
}

impl Categories {
    /// Collect them.
    pub fn of(table: &TextTable) -> Self {
        let sorted = |column: &Vec<String>| column.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        Self { names: table.names.clone(), values: table.columns.iter().map(sorted).collect() }
    }

    /// Number of values of each column.
    pub fn sizes(&self) -> Vec<usize> {
        self.values.iter().map(Vec::len).collect()
    }

    /// The ids of a table with the same columns, row by row. `origin` is named in errors.
    ///
    /// # Errors
    /// Other columns, or a value that is not among the categories, with its row.
    pub fn encode(&self, table: &TextTable, origin: &Path) -> Result<Vec<Vec<u32>>> {
        let wrong = |column: &str, message: String| {
            Err(DataError::Column { path: origin.to_owned(), column: column.to_owned(), message })
        };
        if table.names != self.names {
            let message = format!("the columns are {}, not {}", table.names.join(", "), self.names.join(", "));
            return wrong(table.names.iter().find(|n| !self.names.contains(n)).map_or("", String::as_str), message);
        }
        let mut rows = vec![Vec::with_capacity(self.names.len()); table.rows()];
        for ((name, values), column) in self.names.iter().zip(&self.values).zip(&table.columns) {
            for (number, (row, value)) in rows.iter_mut().zip(column).enumerate() {
                match values.binary_search(value) {
                    Ok(id) => row.push(id as u32),
                    Err(_) => return wrong(name, format!("row {number} holds `{value}`, which is no known value")),
                }
            }
        }
        Ok(rows)
    }

    /// Rows of ids as text. An id that no value has becomes an empty text.
    pub fn decode(&self, rows: &[Vec<u32>]) -> TextTable {
        let text = |values: &Vec<String>, id: Option<&u32>| id.and_then(|id| values.get(*id as usize)).cloned();
        let column = |(c, values): (usize, &Vec<String>)| {
            rows.iter().map(|row| text(values, row.get(c)).unwrap_or_default()).collect()
        };
        TextTable { names: self.names.clone(), columns: self.values.iter().enumerate().map(column).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, values: &[&str]) -> TextTable {
        TextTable { names: vec![name.into()], columns: vec![values.iter().map(|v| (*v).to_owned()).collect()] }
    }

    #[test]
    fn other_tables_are_refused() {
        let categories = Categories::of(&table("a", &["y", "x", "y"]));
        let message = |t: &TextTable| categories.encode(t, "t.csv".as_ref()).unwrap_err().to_string();
        assert!(message(&table("b", &["x"])).contains("column `b`"));
        assert!(message(&table("a", &["x", "z"])).contains("row 1 holds `z`"));
    }
}
