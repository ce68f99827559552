//! Images in parquet files, in the hub's layout: a struct column with a child `bytes` that holds a PNG or JPEG file.
//!
//! Files are read in small batches of rows, so that memory holds one row group's pages beside the images.

use std::cell::RefCell;
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
use crate::lazy::{Skipped, refused};
use crate::open::Reading;
use crate::picture::{Refusal, Target, decode};
use crate::shield::shield;
use crate::unpacked::Unpacked;
use crate::{DataError, ImageSet, Result};

/// Rows that are decoded at once.
const BATCH: usize = 256;

/// Some rows of parquet files that follow one another.
pub(crate) struct Tables<'a> {
    files: &'a [PathBuf],
    columns: &'a Columns,
    /// Files, and the rows that are wanted of each.
    wanted: Vec<(Table<'a>, Range<usize>)>,
}

impl<'a> Tables<'a> {
    /// The rows `wanted(total)` of the rows of all files together.
    ///
    /// # Errors
    /// Files that are missing or damaged.
    pub(crate) fn open(
        files: &'a [PathBuf],
        columns: &'a Columns,
        wanted: impl Fn(usize) -> Range<usize>,
    ) -> Result<Self> {
        let tables = files.iter().map(|path| Table::open(path)).collect::<Result<Vec<_>>>()?;
        let range = wanted(tables.iter().map(Table::rows).sum());
        let mut first = 0;
        let share = |table: Table<'a>| {
            let end = first + table.rows();
            let rows = range.start.clamp(first, end) - first..range.end.clamp(first, end) - first;
            first = end;
            (table, rows)
        };
        let wanted = tables.into_iter().map(share).filter(|(_, rows)| !rows.is_empty()).collect();
        Ok(Self { files, columns, wanted })
    }

    /// Number of wanted rows.
    pub(crate) fn rows(&self) -> usize {
        self.wanted.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// Decode the wanted rows into memory.
    ///
    /// # Errors
    /// Damaged files, named with row group, row and column; columns that are missing or of another type; images that
    /// have another size, or cannot be used unless `reading` says to skip these.
    pub(crate) fn load(self, target: Target, reading: Reading) -> Result<ImageSet> {
        let total = self.rows();
        let mut pixels = Vec::new();
        let skipped = RefCell::new(Skipped::default());
        let labels = self.read(&mut |bytes, place| {
            let mut kept = Vec::with_capacity(bytes.len());
            for (row, image) in decode_rows(bytes, target).into_iter().enumerate() {
                kept.push(image.is_ok());
                match image {
                    Ok(image) => pixels.extend(image),
                    Err(refusal) => {
                        skipped.borrow_mut().or_refuse(refused(place.plus(row).origin(), target, refusal), reading)?
                    }
                }
            }
            Ok(kept)
        })?;
        skipped.borrow().tell(total);
        ImageSet::new(target.size, pixels, labels)
    }

    /// Copy the wanted rows, still encoded, to a file that goes away with the process, from which each can be read alone.
    ///
    /// # Errors
    /// As [`Tables::load`]; a folder for temporary files that is full or cannot be written.
    pub(crate) fn unpack(self) -> Result<Unpacked> {
        let mut unpacked = Unpacked::new()?;
        unpacked.labels = self.read(&mut |bytes, place| {
            for row in 0..bytes.len() {
                unpacked.push(bytes.get(row).unwrap_or_default(), place.plus(row).origin())?;
            }
            Ok(vec![true; bytes.len()])
        })?;
        Ok(unpacked)
    }

    /// Read the wanted rows batch by batch. `take` says which of a batch it keeps; the labels of these are returned.
    fn read(self, take: &mut Take<'_>) -> Result<Option<Vec<u32>>> {
        let mut labels = Vec::new();
        let mut unlabelled = false;
        for (table, rows) in self.wanted {
            match table.read(self.columns, rows, take)? {
                Some(found) => labels.extend(found),
                None => unlabelled = true,
            }
        }
        if unlabelled && !labels.is_empty() {
            let path = self.files.last().cloned().unwrap_or_default();
            let message = "some files of the set have the label column and some have not";
            return Err(DataError::corrupt(&path, "schema", message));
        }
        Ok((!unlabelled && !labels.is_empty()).then_some(labels))
    }
}

/// Takes the encoded images of a batch of rows, the first of them at a place, and says which it keeps.
type Take<'a> = dyn FnMut(&Bytes<'_>, Place<'_>) -> Result<Vec<bool>> + 'a;

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

    /// Hand the rows to `take`; the labels of those that it keeps, if the file has labels.
    fn read(self, columns: &Columns, rows: Range<usize>, take: &mut Take<'_>) -> Result<Option<Vec<u32>>> {
        let Self { path, builder, groups } = self;
        let labelled = check_columns(path, &builder, columns)?;
        let names = [Some(columns.image.as_str()), labelled.then_some(columns.label.as_str())];
        let roots = builder.parquet_schema().root_schema().get_fields().iter().map(|f| f.name().to_owned());
        let roots: Vec<usize> =
            roots.enumerate().filter(|(_, n)| names.contains(&Some(n.as_str()))).map(|(i, _)| i).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader =
            builder.with_projection(mask).with_batch_size(BATCH).with_offset(rows.start).with_limit(rows.len());
        let at = |row: usize| Place { path, groups: &groups, column: "", row };
        let mut reader = shielded(|| reader.build()).map_err(|e| at(rows.start).corrupt(&columns.image, e))?;
        let mut row = rows.start;
        let mut labels = Vec::new();
        while let Some(batch) = shielded(|| reader.next().transpose().map_err(ParquetError::from))
            .map_err(|e| at(row).corrupt(&columns.image, e))?
        {
            let column = batch.column_by_name(&columns.image);
            let bytes = column.and_then(Bytes::of);
            let bytes = bytes.ok_or_else(|| at(row).corrupt(&columns.image, "the column is missing"))?;
            let kept = take(&bytes, at(row).of(&columns.image))?;
            if labelled {
                let found = read_labels(&batch, columns, at(row))?;
                labels.extend(found.into_iter().zip(kept).filter_map(|(label, kept)| kept.then_some(label)));
            }
            row += batch.num_rows();
        }
        if row == rows.end {
            return Ok(labelled.then_some(labels));
        }
        Err(at(row).corrupt(&columns.image, format!("{row} rows instead of {}", rows.end)))
    }
}

/// Run a call into the parquet reader, which panics on some damaged bytes.
pub(crate) fn shielded<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    shield(call).unwrap_or_else(|| Err(ParquetError::General("the reader cannot make sense of the bytes".into())))
}

/// A row of a file, to be named in errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    groups: &'a [usize],
    column: &'a str,
    row: usize,
}

impl<'a> Place<'a> {
    fn plus(self, rows: usize) -> Self {
        Self { row: self.row + rows, ..self }
    }

    fn of(self, column: &'a str) -> Self {
        Self { column, ..self }
    }

    fn origin(&self) -> String {
        format!("{}: {}", self.path.display(), self.name(self.column))
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

fn decode_rows(bytes: &Bytes<'_>, target: Target) -> Vec<Result<Vec<u8>, Refusal>> {
    let decode_row = |row: usize| {
        let mut pixels = Vec::with_capacity(target.size.bytes());
        let encoded = bytes.get(row).ok_or_else(|| Refusal::Bytes("the row has no image".into()))?;
        decode(encoded, target, &mut pixels).map(|()| pixels)
    };
    (0..bytes.len()).into_par_iter().map(decode_row).collect()
}

/// A column of byte strings of one of arrow's three layouts.
enum Bytes<'a> {
    Small(&'a arrow_array::BinaryArray),
    Large(&'a arrow_array::LargeBinaryArray),
    View(&'a arrow_array::BinaryViewArray),
}

impl<'a> Bytes<'a> {
    /// The column itself, or the child `bytes` of the hub's struct.
    fn of(column: &'a ArrayRef) -> Option<Self> {
        let column = match column.as_struct_opt() {
            Some(parent) => parent.column_by_name("bytes")?,
            None => column,
        };
        let small = column.as_binary_opt::<i32>().map(Self::Small);
        let large = || column.as_binary_opt::<i64>().map(Self::Large);
        small.or_else(large).or_else(|| column.as_binary_view_opt().map(Self::View))
    }

    fn len(&self) -> usize {
        match self {
            Self::Small(array) => array.len(),
            Self::Large(array) => array.len(),
            Self::View(array) => array.len(),
        }
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Small(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

fn read_labels(batch: &RecordBatch, columns: &Columns, place: Place<'_>) -> Result<Vec<u32>> {
    let column = batch.column_by_name(&columns.label);
    let values = column.and_then(integers).ok_or_else(|| place.corrupt(&columns.label, "not a column of integers"))?;
    let label = |(row, value): (usize, Option<i128>)| {
        value.and_then(|v| u32::try_from(v).ok()).ok_or_else(|| {
            let found = value.map_or("nothing".to_owned(), |v| v.to_string());
            place.plus(row).corrupt(&columns.label, format!("{found} is not a label: a number from 0 on is"))
        })
    };
    values.into_iter().enumerate().map(label).collect()
}

pub(crate) fn integers(column: &ArrayRef) -> Option<Vec<Option<i128>>> {
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
