//! Recordings in parquet files, in the hub's layout: a struct column with a child `bytes` that holds a file of sound.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::open::Labelled;
use super::recording::Recording;
use crate::card::Columns;
use crate::table::{Bytes, integers, shielded};
use crate::{DataError, Result};

/// Rows that are taken at once.
const BATCH: usize = 256;

/// The recordings in rows `wanted(total)` of all files together, still encoded.
///
/// # Errors
/// Files that are missing or damaged, columns that are missing or of another type, rows without a recording.
pub(super) fn read_sounds(
    files: &[PathBuf],
    columns: &Columns,
    wanted: impl Fn(usize) -> Range<usize>,
) -> Result<Vec<Labelled>> {
    let tables = files.iter().map(|path| Ok((path, open(path)?))).collect::<Result<Vec<_>>>()?;
    let rows = |b: &ParquetRecordBatchReaderBuilder<File>| {
        usize::try_from(b.metadata().file_metadata().num_rows()).unwrap_or(0)
    };
    let wanted = wanted(tables.iter().map(|(_, b)| rows(b)).sum());
    let (mut found, mut first) = (Vec::new(), 0);
    for (path, builder) in tables {
        let rows = rows(&builder);
        let range = wanted.start.clamp(first, first + rows) - first..wanted.end.clamp(first, first + rows) - first;
        first += rows;
        if !range.is_empty() {
            read(path, builder, columns, range, &mut found)?;
        }
    }
    let labelled = found.iter().filter(|(_, label)| label.is_some()).count();
    if labelled != 0 && labelled != found.len() {
        let path = files.last().cloned().unwrap_or_default();
        return Err(DataError::corrupt(
            &path,
            "schema",
            "some files of the set have the label column and some have not",
        ));
    }
    Ok(found)
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    shielded(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(|e| DataError::corrupt(path, "footer", e))
}

fn read(
    path: &Path,
    builder: ParquetRecordBatchReaderBuilder<File>,
    columns: &Columns,
    rows: Range<usize>,
    found: &mut Vec<Labelled>,
) -> Result<()> {
    let names: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    if !names.contains(&columns.audio) {
        let message = format!("not in this file, which has: {}; name it in `columns` of the card", names.join(", "));
        return Err(DataError::Column { path: path.to_owned(), column: columns.audio.clone(), message });
    }
    let needed = |name: &String| *name == columns.audio || *name == columns.label;
    let roots: Vec<usize> = names.iter().enumerate().filter(|(_, n)| needed(n)).map(|(i, _)| i).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let builder = builder.with_projection(mask).with_batch_size(BATCH).with_offset(rows.start).with_limit(rows.len());
    let corrupt = |row: usize, e: ParquetError| DataError::corrupt(path, format!("row {row}"), e);
    let mut reader = shielded(|| builder.build()).map_err(|e| corrupt(rows.start, e))?;
    let mut row = rows.start;
    while let Some(batch) =
        shielded(|| reader.next().transpose().map_err(ParquetError::from)).map_err(|e| corrupt(row, e))?
    {
        take(path, &batch, columns, row, found)?;
        row += batch.num_rows();
    }
    if row == rows.end {
        return Ok(());
    }
    Err(DataError::corrupt(path, format!("row {row}"), format!("{row} rows instead of {}", rows.end)))
}

fn take(path: &Path, batch: &RecordBatch, columns: &Columns, first: usize, found: &mut Vec<Labelled>) -> Result<()> {
    let column = |name: &str, message: &str| DataError::Column {
        path: path.to_owned(),
        column: name.to_owned(),
        message: message.to_owned(),
    };
    let bytes = batch.column_by_name(&columns.audio).and_then(Bytes::of).ok_or_else(|| {
        column(&columns.audio, "neither binary nor a struct with binary `bytes`: the recordings must be in the file")
    })?;
    let labels = match batch.column_by_name(&columns.label) {
        None => None,
        Some(labels) => Some(integers(labels).ok_or_else(|| column(&columns.label, "not a column of integers"))?),
    };
    for row in 0..batch.num_rows() {
        let place = format!("row {}", first + row);
        let content = bytes
            .get(row)
            .ok_or_else(|| DataError::corrupt(path, &place, format!("column `{}` is empty", columns.audio)))?;
        let label = match labels.as_ref().and_then(|l| l.get(row)) {
            None => None,
            Some(value) => Some(value.and_then(|v| u32::try_from(v).ok()).ok_or_else(|| {
                DataError::corrupt(path, &place, format!("column `{}` holds no number from 0 on", columns.label))
            })?),
        };
        let origin = PathBuf::from(format!("{}, {place}", path.display()));
        found.push((Recording::Bytes { origin, bytes: content.into() }, label));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Int64Array, StructArray};
    use arrow_schema::{DataType, Field};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn wav(value: i16) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        (0..50).for_each(|_| writer.write_sample(value).unwrap());
        writer.finalize().unwrap();
        file.into_inner()
    }

    fn table(path: &Path, name: &str, rows: i16) {
        let sounds: Vec<Vec<u8>> = (0..rows).map(wav).collect();
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(&sounds));
        let sounds: ArrayRef =
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("bytes", DataType::Binary, false)), bytes)]));
        let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(i64::from)));
        let batch = RecordBatch::try_from_iter([(name, sounds), ("label", labels)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn rows_of_several_files_are_one_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let files = [dir.path().join("a.parquet"), dir.path().join("b.parquet")];
        table(&files[0], "audio", 3);
        table(&files[1], "audio", 4);
        let found = read_sounds(&files, &Columns::default(), |n| 2..n - 1).unwrap();
        let labels: Vec<_> = found.iter().map(|(_, l)| l.unwrap()).collect();
        assert_eq!(labels, [2, 0, 1, 2]);
        assert_eq!(found[3].0.read(0..50, 8000).unwrap(), vec![2.0 / 32_768.0; 50]);
        table(&files[1], "sound", 4);
        let message = read_sounds(&files, &Columns::default(), |n| 0..n).unwrap_err().to_string();
        assert!(message.contains("`audio`") && message.contains("sound, label"), "{message}");
        std::fs::write(&files[1], b"PAR1 and nothing else").unwrap();
        assert!(read_sounds(&files, &Columns::default(), |n| 0..n).is_err());
    }
}
