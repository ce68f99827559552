//! Images in parquet files, in the hub's layout: a struct column with a child `bytes` that holds a PNG or JPEG file.
//!
//! Files are read in small batches of rows, so that memory holds one row group's pages and the decoded images.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, types};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use rayon::prelude::*;

use crate::card::Columns;
use crate::picture::{Refusal, Target, decode, wrong_size};
use crate::shield::shield;
use crate::{DataError, ImageSet, Result};

/// Rows that are decoded at once.
const BATCH: usize = 256;

/// Read the rows `wanted(total)` of the rows of all files together.
///
/// # Errors Files that are missing or damaged, named with row group, row and column; columns that are missing or of
/// another type; images that cannot be decoded or have another size.
pub(crate) fn read_parquet(
    files: &[PathBuf],
    columns: &Columns,
    target: Target,
    wanted: impl Fn(usize) -> Range<usize>,
) -> Result<ImageSet> {
    let tables = files.iter().map(|path| Table::open(path)).collect::<Result<Vec<_>>>()?;
    let wanted = wanted(tables.iter().map(Table::rows).sum());
    let mut images = Collected { target, pixels: Vec::new(), labels: Vec::new(), unlabelled: 0 };
    let mut first = 0;
    for table in tables {
        let rows = table.rows();
        let range = wanted.start.clamp(first, first + rows) - first..wanted.end.clamp(first, first + rows) - first;
        first += rows;
        if !range.is_empty() {
            table.read(columns, range, &mut images)?;
        }
    }
    images.into_set(files)
}

/// Images read so far.
struct Collected {
    target: Target,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    unlabelled: usize,
}

impl Collected {
    fn into_set(self, files: &[PathBuf]) -> Result<ImageSet> {
        if self.unlabelled > 0 && !self.labels.is_empty() {
            let path = files.last().cloned().unwrap_or_default();
            let message = "some files of the set have the label column and some have not";
            return Err(DataError::corrupt(&path, "schema", message));
        }
        ImageSet::new(self.target.size, self.pixels, (!self.labels.is_empty()).then_some(self.labels))
    }
}

/// An open parquet file.
struct Table<'a> {
    path: &'a Path,
    builder: ParquetRecordBatchReaderBuilder<File>,
    /// Number of rows of each row group.
    groups: Vec<usize>,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| DataError::io(path, e))?;
        let builder = shielded(|| ParquetRecordBatchReaderBuilder::try_new(file))
            .map_err(|e| DataError::corrupt(path, "footer", e))?;
        let groups = builder.metadata().row_groups().iter().map(|g| usize::try_from(g.num_rows()).unwrap_or(0));
        let groups = groups.collect();
        Ok(Self { path, builder, groups })
    }

    fn rows(&self) -> usize {
        self.groups.iter().sum()
    }

    fn read(self, columns: &Columns, rows: Range<usize>, images: &mut Collected) -> Result<()> {
        let Self { path, builder, groups } = self;
        let labelled = check_columns(path, &builder, columns)?;
        let names = [Some(columns.image.as_str()), labelled.then_some(columns.label.as_str())];
        let roots = builder.parquet_schema().root_schema().get_fields().iter().map(|f| f.name().to_owned());
        let roots: Vec<usize> =
            roots.enumerate().filter(|(_, n)| names.contains(&Some(n.as_str()))).map(|(i, _)| i).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader =
            builder.with_projection(mask).with_batch_size(BATCH).with_offset(rows.start).with_limit(rows.len());
        let at = |row: usize| Place { path, groups: &groups, row };
        let mut reader = shielded(|| reader.build()).map_err(|e| at(rows.start).corrupt(&columns.image, e))?;
        let mut row = rows.start;
        while let Some(batch) = shielded(|| reader.next().transpose().map_err(ParquetError::from))
            .map_err(|e| at(row).corrupt(&columns.image, e))?
        {
            decode_images(&batch, columns, at(row), images)?;
            if labelled {
                read_labels(&batch, columns, at(row), &mut images.labels)?;
            } else {
                images.unlabelled += batch.num_rows();
            }
            row += batch.num_rows();
        }
        if row == rows.end {
            return Ok(());
        }
        Err(at(row).corrupt(&columns.image, format!("{row} rows instead of {}", rows.end)))
    }
}

/// Run a call into the parquet reader, which panics on some damaged bytes.
fn shielded<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    shield(call).unwrap_or_else(|| Err(ParquetError::General("the reader cannot make sense of the bytes".into())))
}

/// A row of a file, to be named in errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    groups: &'a [usize],
    row: usize,
}

impl Place<'_> {
    fn plus(self, rows: usize) -> Self {
        Self { row: self.row + rows, ..self }
    }

    fn name(&self, column: &str) -> String {
        let mut end = 0;
        let group = self.groups.iter().take_while(|rows| {
            end += **rows;
            end <= self.row
        });
        format!("row group {}, row {}, column `{column}`", group.count(), self.row)
    }

    fn corrupt(&self, column: &str, message: impl std::fmt::Display) -> DataError {
        DataError::corrupt(self.path, self.name(column), message)
    }
}

/// See that the columns can be read; whether there are labels.
fn check_columns(path: &Path, builder: &ParquetRecordBatchReaderBuilder<File>, columns: &Columns) -> Result<bool> {
    let schema = builder.schema();
    let error =
        |column: &str, message: String| DataError::Column { path: path.to_owned(), column: column.into(), message };
    let Ok(field) = schema.field_with_name(&columns.image) else {
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let message = format!("not in this file, which has: {}; name it in `columns` of the card", names.join(", "));
        return Err(error(&columns.image, message));
    };
    let bytes = match field.data_type() {
        DataType::Struct(children) => children.find("bytes").map(|(_, f)| f.data_type()).ok_or_else(|| {
            error(&columns.image, "its struct has no child `bytes`; the images must be in the file".into())
        })?,
        other => other,
    };
    if !matches!(bytes, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        return Err(error(
            &columns.image,
            format!("type {bytes} instead of binary, or of a struct with binary `bytes`"),
        ));
    }
    match schema.field_with_name(&columns.label).map(|f| f.data_type()) {
        Err(_) => Ok(false),
        Ok(kind) if kind.is_integer() => Ok(true),
        Ok(kind) => Err(error(&columns.label, format!("labels of type {kind} instead of an integer type"))),
    }
}

fn decode_images(batch: &RecordBatch, columns: &Columns, place: Place<'_>, images: &mut Collected) -> Result<()> {
    let column = batch.column_by_name(&columns.image);
    let bytes = column.and_then(bytes_of).ok_or_else(|| place.corrupt(&columns.image, "the column is missing"))?;
    let target = images.target;
    let decode_row = |row: usize| {
        let mut pixels = Vec::with_capacity(target.size.bytes());
        let encoded = bytes.get(row).ok_or_else(|| Refusal::Bytes("the row has no image".into()))?;
        decode(encoded, target, &mut pixels).map(|()| pixels)
    };
    let decoded: Vec<_> = (0..batch.num_rows()).into_par_iter().map(decode_row).collect();
    for (row, pixels) in decoded.into_iter().enumerate() {
        let place = place.plus(row);
        match pixels {
            Ok(pixels) => images.pixels.extend(pixels),
            Err(Refusal::Bytes(message)) => return Err(place.corrupt(&columns.image, message)),
            Err(Refusal::Size(found)) => {
                let origin = format!("{}: {}", place.path.display(), place.name(&columns.image));
                return Err(wrong_size(origin, target.size, found));
            }
        }
    }
    Ok(())
}

/// A column of byte strings of one of arrow's three layouts.
enum Bytes<'a> {
    Small(&'a arrow_array::BinaryArray),
    Large(&'a arrow_array::LargeBinaryArray),
    View(&'a arrow_array::BinaryViewArray),
}

impl Bytes<'_> {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Small(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

fn bytes_of(column: &ArrayRef) -> Option<Bytes<'_>> {
    let column = match column.as_struct_opt() {
        Some(parent) => parent.column_by_name("bytes")?,
        None => column,
    };
    let small = column.as_binary_opt::<i32>().map(Bytes::Small);
    let large = || column.as_binary_opt::<i64>().map(Bytes::Large);
    small.or_else(large).or_else(|| column.as_binary_view_opt().map(Bytes::View))
}

fn read_labels(batch: &RecordBatch, columns: &Columns, place: Place<'_>, labels: &mut Vec<u32>) -> Result<()> {
    let column = batch.column_by_name(&columns.label);
    let values = column.and_then(integers).ok_or_else(|| place.corrupt(&columns.label, "not a column of integers"))?;
    for (row, value) in values.into_iter().enumerate() {
        let label = value.and_then(|v| u32::try_from(v).ok()).ok_or_else(|| {
            let found = value.map_or("nothing".to_owned(), |v| v.to_string());
            place.plus(row).corrupt(&columns.label, format!("{found} is not a label: a number from 0 on is"))
        })?;
        labels.push(label);
    }
    Ok(())
}

fn integers(column: &ArrayRef) -> Option<Vec<Option<i128>>> {
    macro_rules! of {
        ($($kind:ty),*) => {
            $(if let Some(array) = column.as_primitive_opt::<$kind>() {
                return Some(array.iter().map(|v| v.map(i128::from)).collect());
            })*
        };
    }
    use types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
    of!(Int64Type, Int32Type, UInt8Type, Int16Type, Int8Type, UInt16Type, UInt32Type, UInt64Type);
    None
}

#[cfg(test)]
mod tests;
