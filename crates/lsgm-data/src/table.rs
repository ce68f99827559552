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
/// # Errors
/// Files that are missing or damaged, named with row group, row and column; columns that are missing or of another type;
/// images that cannot be decoded or have another size.
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
mod tests {
    use super::*;
    use crate::picture::tests::grey_png;
    use crate::{Fit, ImageSize, Images};
    use arrow_array::{ArrayRef, BinaryArray, Int64Array, LargeBinaryArray, StringArray, StructArray};
    use arrow_schema::Field;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;

    const TARGET: Target = Target { size: ImageSize { channels: 1, height: 4, width: 4 }, fit: Fit::Exact };

    /// The hub's struct: `bytes` and `path`.
    fn hub_column(images: Vec<Option<Vec<u8>>>) -> ArrayRef {
        let paths: ArrayRef = Arc::new(StringArray::from(vec!["x.png"; images.len()]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(images));
        let path = Arc::new(Field::new("path", DataType::Utf8, true));
        let field = Arc::new(Field::new("bytes", DataType::Binary, true));
        Arc::new(StructArray::from(vec![(path, paths), (field, bytes)]))
    }

    fn labels(values: impl IntoIterator<Item = i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(values))
    }

    fn png(value: u8) -> Vec<u8> {
        grey_png(4, 4, |_, _| value)
    }

    /// A file of row groups of three rows.
    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(3))
            .build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn read(files: &[PathBuf], range: Range<usize>) -> Result<ImageSet> {
        read_parquet(files, &Columns::default(), TARGET, |_| range.clone())
    }

    fn first_pixels(set: &ImageSet) -> Vec<u8> {
        set.pixels().iter().step_by(16).copied().collect()
    }

    #[test]
    fn rows_of_several_shards_and_row_groups_form_one_set() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..3).map(|i| dir.path().join(format!("{i}.parquet"))).collect();
        for (i, file) in files.iter().enumerate() {
            let values = (0..7).map(|k| (10 * i + k) as u8);
            let column = hub_column(values.clone().map(|v| Some(png(v))).collect());
            write(file, vec![("label", labels(values.map(i64::from))), ("other", labels(0..7)), ("image", column)]);
        }
        let all: Vec<u8> = (0..3).flat_map(|i| (0..7).map(move |k| 10 * i + k)).collect();
        for range in [0..21, 5..16, 7..14, 20..21, 3..3] {
            let set = read(&files, range.clone()).unwrap();
            assert_eq!(first_pixels(&set), all[range.clone()], "{range:?}");
            let labels: Option<Vec<u8>> = set.labels().map(|l| l.iter().map(|v| *v as u8).collect());
            assert_eq!(labels.unwrap_or_default(), all[range]);
        }
    }

    #[test]
    fn a_plain_binary_column_will_do_and_labels_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        for (name, column) in [
            ("small", Arc::new(BinaryArray::from_iter_values([png(1), png(2)])) as ArrayRef),
            ("large", Arc::new(LargeBinaryArray::from_iter_values([png(1), png(2)]))),
        ] {
            let file = dir.path().join(name);
            write(&file, vec![("image", column)]);
            let set = read(&[file], 0..2).unwrap();
            assert_eq!((first_pixels(&set), set.labels()), (vec![1, 2], None));
        }
    }

    #[test]
    fn errors_name_file_row_group_row_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let images = |bad: Option<Vec<u8>>| {
            let mut rows: Vec<_> = (0..8).map(|v| Some(png(v))).collect();
            rows[7] = bad;
            hub_column(rows)
        };
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"; 8]));
        let good = || ("image", images(Some(png(7))));
        let cases = [
            (vec![("image", images(Some(png(7)[..30].to_vec())))], vec!["row group 2, row 7, column `image`"]),
            (vec![("image", images(Some(b"not an image".to_vec())))], vec!["row 7"]),
            (vec![("image", images(None))], vec!["row group 2, row 7, column `image`: the row has no image"]),
            (
                vec![("image", images(Some(grey_png(5, 3, |_, _| 0))))],
                vec!["row group 2, row 7", "expected 4x4, found 3x5", "data.fit"],
            ),
            (vec![("picture", images(None))], vec!["column `image`: not in this file, which has: picture"]),
            (vec![("image", text.clone())], vec!["column `image`: type Utf8 instead of binary"]),
            (vec![good(), ("label", text)], vec!["column `label`: labels of type Utf8"]),
            (
                vec![good(), ("label", labels([0, 1, 2, 3, -4, 5, 6, 7]))],
                vec!["row group 1, row 4, column `label`: -4 is not a label"],
            ),
        ];
        for (i, (columns, words)) in cases.into_iter().enumerate() {
            let file = dir.path().join(format!("{i}.parquet"));
            write(&file, columns);
            let error = read(std::slice::from_ref(&file), 0..8).unwrap_err().to_string();
            for word in words.into_iter().chain([format!("{i}.parquet").as_str()]) {
                assert!(error.contains(word), "`{error}` lacks `{word}`");
            }
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("damaged.parquet");
        let column = hub_column((0..20).map(|v| Some(png(v))).collect());
        write(&file, vec![("image", column), ("label", labels(0..20))]);
        let whole = std::fs::read(&file).unwrap();
        let mut rng = lsgm_core::Rng::new(3);
        let mut errors = 0;
        for _ in 0..6000 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.bits() as u8;
            }
            if rng.below(4) == 0 {
                bytes.truncate(rng.below(bytes.len()));
            }
            std::fs::write(&file, bytes).unwrap();
            match read(std::slice::from_ref(&file), 0..20) {
                Ok(set) => assert!(set.len() <= 20),
                Err(error) => {
                    errors += 1;
                    assert!(error.to_string().contains("damaged.parquet"), "{error}");
                }
            }
        }
        assert!(errors > 1000, "{errors}");
    }
}
