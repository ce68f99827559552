//! Tables of categories: every value as text, from CSV or parquet.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use crate::csv::{read_csv, write_csv};
use crate::table::{integers, shielded};
use crate::{DataError, Result};

/// A table whose values are text, column by column. A missing value is empty.
///
/// ```
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("pets.csv");
/// std::fs::write(&path, "animal,legs\ncat,4\n\"parrot, grey\",2\n").unwrap();
/// let table = lsgm_data::TextTable::read(&path).unwrap();
/// assert_eq!(table.names, ["animal", "legs"]);
/// assert_eq!(table.columns[0], ["cat", "parrot, grey"]);
/// assert_eq!(table.rows(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    /// Names of the columns.
    pub names: Vec<String>,
    /// The values of each column, of equal number.
    pub columns: Vec<Vec<String>>,
}

impl TextTable {
    /// Read `*.csv` (RFC 4180, the first record holds the names) or `*.parquet` (columns of text, whole numbers or
    /// booleans).
    ///
    /// # Errors
    /// A file that is missing or damaged, with the place; another extension; a parquet column of another type.
    pub fn read(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("csv") => read_csv(path),
            Some("parquet") => read_parquet(path),
            _ => Err(DataError::corrupt(path, "name", "a table is a file *.csv or *.parquet")),
        }
    }

    /// The table as CSV, as [`TextTable::read`] takes it.
    pub fn to_csv(&self) -> String {
        write_csv(self)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }
}

fn read_parquet(path: &Path) -> Result<TextTable> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let damaged = |place: &str, e: ParquetError| DataError::corrupt(path, place, e);
    let builder = shielded(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(|e| damaged("footer", e))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    let mut reader = shielded(|| builder.build()).map_err(|e| damaged("footer", e))?;
    let mut columns = vec![Vec::new(); names.len()];
    while let Some(batch) =
        shielded(|| reader.next().transpose().map_err(ParquetError::from)).map_err(|e| damaged("rows", e))?
    {
        for ((values, name), column) in columns.iter_mut().zip(&names).zip(batch.columns()) {
            let texts = texts(column).ok_or_else(|| DataError::Column {
                path: path.to_owned(),
                column: name.clone(),
                message: format!(
                    "values of type {} are not categories: give text, whole numbers or booleans",
                    column.data_type()
                ),
            })?;
            values.extend(texts);
        }
    }
    Ok(TextTable { names, columns })
}

/// The values of a column as text, nothing for a type that has no categories.
fn texts(column: &ArrayRef) -> Option<Vec<String>> {
    macro_rules! strings {
        ($array:expr) => {
            $array.iter().map(|v| v.unwrap_or_default().to_owned()).collect()
        };
    }
    if let Some(array) = column.as_string_opt::<i32>() {
        return Some(strings!(array));
    }
    if let Some(array) = column.as_string_opt::<i64>() {
        return Some(strings!(array));
    }
    if let Some(array) = column.as_string_view_opt() {
        return Some(strings!(array));
    }
    if let Some(array) = column.as_boolean_opt() {
        return Some(array.iter().map(|v| v.map(|v| v.to_string()).unwrap_or_default()).collect());
    }
    if let Some(array) = column.as_any_dictionary_opt() {
        let words = texts(array.values())?;
        let word = |(row, key): (usize, usize)| {
            if array.is_valid(row) { words.get(key).cloned().unwrap_or_default() } else { String::new() }
        };
        return Some(array.normalized_keys().into_iter().enumerate().map(word).collect());
    }
    Some(integers(column)?.into_iter().map(|v| v.map(|v| v.to_string()).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::Int32Type;
    use arrow_array::{BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    fn parquet(columns: Vec<(&str, ArrayRef)>) -> Result<TextTable> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        TextTable::read(&path)
    }

    #[test]
    fn parquet_columns_of_every_kind_of_category_become_text() {
        let words: DictionaryArray<Int32Type> = [Some("x"), None, Some("y")].into_iter().collect();
        let table = parquet(vec![
            ("text", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])) as ArrayRef),
            ("number", Arc::new(Int64Array::from(vec![3, -1, 3]))),
            ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("word", Arc::new(words)),
        ])
        .unwrap();
        assert_eq!(table.names, ["text", "number", "flag", "word"]);
        let expected = [["a", "b", ""], ["3", "-1", "3"], ["true", "false", "true"], ["x", "", "y"]];
        assert_eq!(table.columns, expected);
        assert_eq!(table.rows(), 3);
    }

    #[test]
    fn other_types_and_damaged_files_are_told() {
        let message =
            parquet(vec![("w", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]).unwrap_err().to_string();
        assert!(message.contains("column `w`") && message.contains("Float64"), "{message}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        std::fs::write(&path, b"PAR1 and nothing else").unwrap();
        assert!(TextTable::read(&path).unwrap_err().to_string().contains("t.parquet"));
        assert!(TextTable::read(&dir.path().join("t.txt")).unwrap_err().to_string().contains("*.csv"));
        assert!(TextTable::read(&dir.path().join("none.csv")).unwrap_err().to_string().contains("not found"));
    }
}
