use super::*;
use crate::lazy::LazyImages;
use crate::picture::tests::grey_png;
use crate::{Damaged, ImageSize, Images};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, LargeBinaryArray, StringArray, StructArray};
use arrow_schema::Field;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::sync::Arc;

const SIZE: ImageSize = ImageSize { channels: 1, height: 4, width: 4 };

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
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(3)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn read(files: &[PathBuf], range: Range<usize>) -> Result<ImageSet> {
    Tables::open(files, &Columns::default(), |_| range.clone())?.load(Target::exact(SIZE), Reading::default())
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
fn unusable_images_are_left_out_with_their_labels() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.parquet");
    let mut rows: Vec<_> = (0..8).map(|v| Some(png(v))).collect();
    rows[2] = None;
    rows[5] = Some(b"not an image".to_vec());
    write(&file, vec![("image", hub_column(rows)), ("label", labels(10..18))]);
    let files = [file];
    let columns = Columns::default();
    let open = || Tables::open(&files, &columns, |total| 1..total).unwrap();
    let reading = Reading { damaged: Damaged::Skip, ..Reading::default() };
    let set = open().load(Target::exact(SIZE), reading).unwrap();
    assert_eq!((first_pixels(&set), set.labels()), (vec![1, 3, 4, 6, 7], Some(&[11, 13, 14, 16, 17][..])));
    let error = open().load(Target::exact(SIZE), Reading::default()).unwrap_err().to_string();
    assert!(error.contains("row 2") && error.contains("data.damaged"), "{error}");

    let lazy = LazyImages::new(open().unpack().unwrap(), Target::exact(SIZE), reading, false).unwrap();
    let mut pixels = [0; 16];
    let read: Vec<_> = (0..lazy.len()).map(|i| (lazy.read(i, &mut pixels).unwrap().unwrap(), pixels[0])).collect();
    assert_eq!(read, [(11, 1), (13, 3), (14, 4), (16, 6), (17, 7)]);
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
    for _ in 0..2000 {
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
    assert!(errors > 500, "{errors}");
}
