//! A column of texts in a parquet file, one entry for each row.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::sink::Sink;
use crate::table::shielded;
use crate::{DataError, Result};

/// Rows that are read at once.
const BATCH: usize = 256;

/// Hand the column `column` of a file to `sink`; a row without a value is an empty one.
pub(super) fn read_table(path: &Path, column: &str, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let builder = shielded(|| ParquetRecordBatchReaderBuilder::try_new(file))
        .map_err(|e| DataError::corrupt(path, "footer", e))?;
    check_column(path, &builder, column)?;
    let roots = builder.parquet_schema().root_schema().get_fields().iter();
    let index = roots.enumerate().filter(|(_, f)| f.name() == column).map(|(i, _)| i);
    let mask = ProjectionMask::roots(builder.parquet_schema(), index.collect::<Vec<_>>());
    let mut row = 0;
    let corrupt =
        |row: usize, e: &dyn std::fmt::Display| DataError::corrupt(path, format!("row {row}, column `{column}`"), e);
    let reader = builder.with_projection(mask).with_batch_size(BATCH);
    let mut reader = shielded(|| reader.build()).map_err(|e| corrupt(row, &e))?;
    while let Some(batch) =
        shielded(|| reader.next().transpose().map_err(ParquetError::from)).map_err(|e| corrupt(row, &e))?
    {
        let texts = batch.column_by_name(column).and_then(texts).ok_or_else(|| corrupt(row, &"not a text"))?;
        for index in 0..batch.num_rows() {
            if sink.entry(texts.get(index))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        row += batch.num_rows();
    }
    Ok(ControlFlow::Continue(()))
}

fn check_column(path: &Path, builder: &ParquetRecordBatchReaderBuilder<File>, column: &str) -> Result<()> {
    let refuse = |message| Err(DataError::Column { path: path.to_owned(), column: column.to_owned(), message });
    match builder.schema().field_with_name(column).map(|f| f.data_type()) {
        Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => Ok(()),
        Ok(kind) => refuse(format!("type {kind} instead of text")),
        Err(_) => {
            let names: Vec<_> = builder.schema().fields().iter().map(|f| f.name().as_str()).collect();
            refuse(format!("not in this file, which has: {}; name it in `data.column`", names.join(", ")))
        }
    }
}

/// A column of texts in one of arrow's three layouts.
enum Column<'a> {
    Small(&'a arrow_array::StringArray),
    Large(&'a arrow_array::LargeStringArray),
    View(&'a arrow_array::StringViewArray),
}

impl Column<'_> {
    fn get(&self, row: usize) -> &str {
        match self {
            Self::Small(array) if array.is_valid(row) => array.value(row),
            Self::Large(array) if array.is_valid(row) => array.value(row),
            Self::View(array) if array.is_valid(row) => array.value(row),
            _ => "",
        }
    }
}

fn texts(column: &ArrayRef) -> Option<Column<'_>> {
    let small = column.as_string_opt::<i32>().map(Column::Small);
    let large = || column.as_string_opt::<i64>().map(Column::Large);
    small.or_else(large).or_else(|| column.as_string_view_opt().map(Column::View))
}
