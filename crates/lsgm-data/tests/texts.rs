//! Texts: formats, splits, and what is refused or counted.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use lsgm_core::Split;
use lsgm_data::card::Share;
use lsgm_data::{Card, Hub, PIECE, Shares, Tally, TextRequest, Texts, Unit, check, open_texts};
use parquet::arrow::ArrowWriter;

fn offline() -> Hub {
    Hub::from_variables(|_| None)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self, change: impl Fn(&mut TextRequest<'_>)) -> lsgm_data::Result<Texts> {
        let (card, hub) = (Card::find("texts").unwrap(), offline());
        let mut request = TextRequest {
            card: &card,
            split: Split::Train,
            dir: Some(self.path()),
            hub: &hub,
            unit: None,
            column: None,
            shares: None,
            seed: 0,
            limit: None,
        };
        change(&mut request);
        open_texts(&request)
    }

    #[track_caller]
    fn refuses(&self, change: impl Fn(&mut TextRequest<'_>), parts: &[&str]) {
        let error = self.open(change).and_then(|t| t.visit(&mut |_| Ok(ControlFlow::Continue(())))).unwrap_err();
        let error = error.to_string();
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
    }
}

fn entries(texts: &Texts) -> (Vec<String>, Tally) {
    let mut all = Vec::new();
    let tally = texts
        .visit(&mut |piece| {
            if piece.begins {
                all.push(String::new());
            }
            if let Some(last) = all.last_mut() {
                last.push_str(piece.text);
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    (all, tally)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lines_of_plain_and_compressed_files() {
    let text = "\u{feff}one\r\n\n  two\r\n\nthree";
    for (name, bytes) in [("train.txt", text.as_bytes().to_vec()), ("train.txt.gz", gz(text.as_bytes()))] {
        let folder = Folder::with(&[(name, &bytes)]);
        let (all, tally) = entries(&folder.open(|_| ()).unwrap());
        assert_eq!(all, ["one", "  two", "three"]);
        assert_eq!((tally.entries, tally.empty, tally.carriage_returns, tally.characters), (3, 2, 2, 13));
        let (all, tally) = entries(&folder.open(|r| r.unit = Some(Unit::Document)).unwrap());
        assert_eq!(all, ["one\n\n  two\n\nthree"]);
        assert_eq!((tally.entries, tally.carriage_returns), (1, 2));
        assert_eq!(entries(&folder.open(|r| r.limit = Some(2)).unwrap()).0, ["one", "  two"]);
    }
}

#[test]
fn what_is_left_out_of_json_lines_is_counted() {
    let lines = b"{\"text\": \"one\\r\\ntwo\"}\r\n\n{\"text\": \"\"}\n{\"text\": \"three\"}\n";
    let folder = Folder::with(&[("train.jsonl", lines)]);
    let (all, tally) = entries(&folder.open(|_| ()).unwrap());
    assert_eq!(all, ["one\ntwo", "three"]);
    // A line without an object and an object without a text; one line end in a text and one behind an object.
    assert_eq!((tally.entries, tally.empty, tally.carriage_returns), (2, 2, 2));
}

#[test]
fn a_line_of_any_length_is_read_in_pieces() {
    let (line, length) = (vec![b'a'; 1 << 20], 96usize << 20);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    (0..96).for_each(|_| encoder.write_all(&line).unwrap());
    let folder = Folder::with(&[("train.txt.gz", &encoder.finish().unwrap())]);
    let (mut bytes, mut ends) = (0, 0);
    let visit = &mut |piece: lsgm_data::Piece<'_>| {
        assert!(piece.text.len() <= PIECE);
        bytes += piece.text.len();
        ends += usize::from(piece.ends);
        Ok(ControlFlow::Continue(()))
    };
    folder.open(|_| ()).unwrap().visit(visit).unwrap();
    assert_eq!((bytes, ends), (length, 1));
}

#[test]
fn what_is_not_utf8_is_told_with_its_place() {
    let folder = Folder::with(&[("train.txt", b"good\nbad \xff line\n")]);
    folder.refuses(|_| (), &["train.txt", "line 2, byte 9", "0xff is not UTF-8", "iconv"]);
    folder.refuses(|r| r.unit = Some(Unit::Document), &["line 2, byte 9", "UTF-8"]);
    let cut = "an é".as_bytes();
    Folder::with(&[("train.txt", &cut[..cut.len() - 1])]).refuses(|_| (), &["line 1, byte 3"]);
}

#[test]
fn damaged_and_missing_files() {
    let whole = gz(&b"some text\n".repeat(1000));
    Folder::with(&[("train.txt.gz", &whole[..whole.len() / 2])]).refuses(|_| (), &["train.txt.gz", "damaged gzip"]);
    Folder::with(&[]).refuses(|_| (), &["train*.txt", "train*.jsonl", "train*.parquet", "--data"]);
    Folder::with(&[("train.txt", b"\n\n\n")]).refuses(|_| (), &["train split of `texts` is empty"]);
    Folder::with(&[("train.txt", b"a\n")]).refuses(|r| r.split = Split::Test, &["test*.txt"]);
    Folder::with(&[("train.parquet", b"PAR1 no PAR1")]).refuses(|_| (), &["train.parquet", "footer"]);
}

#[test]
fn json_lines_name_field_and_entry() {
    let lines = b"{\"text\": \"a\\nb\", \"n\": 1}\n\n{\"text\": \"c\"}\n";
    let folder = Folder::with(&[("train.jsonl", lines)]);
    assert_eq!(entries(&folder.open(|_| ()).unwrap()).0, ["a\nb", "c"]);
    folder.refuses(|r| r.column = Some("body"), &["entry 1", "no field `body`", "n, text", "data.column"]);
    folder.refuses(|r| r.column = Some("n"), &["entry 1", "`n` is 1 instead of a text"]);
    Folder::with(&[("train.jsonl", b"{\"text\": \"a\"}\nnot json\n")]).refuses(|_| (), &["entry 2", "not JSON"]);
    Folder::with(&[("train.jsonl", b"[1]\n")]).refuses(|_| (), &["entry 1", "not an object"]);
}

fn parquet(path: &Path) {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a b"), None, Some(""), Some("c")]));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let batch = RecordBatch::try_from_iter_with_nullable([("text", texts, true), ("n", numbers, true)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_names_its_column() {
    let folder = Folder::with(&[]);
    parquet(&folder.path().join("train-00000-of-00001.parquet"));
    let (all, tally) = entries(&folder.open(|_| ()).unwrap());
    assert_eq!((all, tally.empty), (vec!["a b".to_owned(), "c".to_owned()], 2));
    folder.refuses(|r| r.column = Some("n"), &["column `n`", "instead of text"]);
    folder.refuses(|r| r.column = Some("body"), &["column `body`", "text, n", "data.column"]);
}

#[test]
fn shares_cut_splits_that_never_overlap() {
    let lines: Vec<String> = (0..101).map(|i| format!("line {i}")).collect();
    let folder = Folder::with(&[("train.txt", lines.join("\n").as_bytes())]);
    for unit in [Unit::Line, Unit::Document] {
        for (val, test) in [(Share::Fraction(0.1), Share::Fraction(0.05)), (Share::Items(7), Share::Items(1))] {
            let of = |split| {
                let open = |r: &mut TextRequest<'_>| {
                    (r.split, r.unit, r.shares) = (split, Some(unit), Some(Shares { val, test }));
                };
                entries(&folder.open(open).unwrap()).0
            };
            let joint = if unit == Unit::Line { "\n" } else { "" };
            assert_eq!(Split::ALL.map(|s| of(s).join(joint)).join(joint), lines.join("\n"));
        }
    }
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}

#[test]
fn known_sets_are_whole() {
    for (set, folder, entries) in
        [("multi30k", "multi30k", [29_000, 1014, 1000]), ("tiny-shakespeare", "tinyshakespeare", [1; 3])]
    {
        let Some(dir) = shared(folder) else { continue };
        let report = check(&Card::find(set).unwrap(), Some(&dir), &offline()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(report.texts.iter().map(|t| t.tally.entries).collect::<Vec<_>>(), entries, "{set}");
    }
    let report = check(&Card::find("grammar").unwrap(), None, &offline()).unwrap();
    assert_eq!((report.problems.len(), report.texts[0].tally.entries), (0, 50_000));
}

#[test]
fn a_set_of_texts_is_no_set_of_images() {
    let config = lsgm_data::BinaryConfig { set: "grammar".into(), ..Default::default() };
    let error = config.open(Split::Train, None).unwrap_err().to_string();
    assert!(error.contains("for text, not for images"), "{error}");
    let (card, hub) = (Card::find("glyphs").unwrap(), offline());
    let request = TextRequest {
        card: &card,
        split: Split::Train,
        dir: None,
        hub: &hub,
        unit: None,
        column: None,
        shares: None,
        seed: 0,
        limit: None,
    };
    let error = open_texts(&request).unwrap_err().to_string();
    assert!(error.contains("for binary, not for text"), "{error}");
}
