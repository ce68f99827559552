//! PyTorch files from hand-made pickles.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Instructions of a pickle that leave one value.
pub(crate) type Code = Vec<u8>;

pub(crate) fn text(text: &str) -> Code {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn int(number: i64) -> Code {
    match i32::try_from(number) {
        Ok(small) => [b"J", &small.to_le_bytes()[..]].concat(),
        Err(_) => [&[0x8a, 8][..], &number.to_le_bytes()].concat(),
    }
}

pub(crate) fn float(number: f64) -> Code {
    [b"G", &number.to_be_bytes()[..]].concat()
}

pub(crate) fn boolean(value: bool) -> Code {
    vec![if value { 0x88 } else { 0x89 }]
}

pub(crate) fn global(module: &str, name: &str) -> Code {
    format!("c{module}\n{name}\n").into_bytes()
}

pub(crate) fn tuple(members: &[Code]) -> Code {
    [b"(", &members.concat()[..], b"t"].concat()
}

pub(crate) fn list(members: &[Code]) -> Code {
    [b"](", &members.concat()[..], b"e"].concat()
}

pub(crate) fn call(callee: Code, arguments: &[Code]) -> Code {
    [&callee[..], &tuple(arguments), b"R"].concat()
}

fn entries(entries: &[(&str, Code)]) -> Code {
    let pairs: Vec<Code> = entries.iter().map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"(", &pairs.concat()[..], b"u"].concat()
}

pub(crate) fn dict(content: &[(&str, Code)]) -> Code {
    [b"}", &entries(content)[..]].concat()
}

/// An `OrderedDict` with the attribute that state dicts have.
pub(crate) fn state_dict(content: &[(&str, Code)]) -> Code {
    let ordered = call(global("collections", "OrderedDict"), &[]);
    let attributes = dict(&[("_metadata", dict(&[("version", int(1))]))]);
    [&ordered[..], &entries(content), &attributes, b"b"].concat()
}

/// An `argparse.Namespace`.
pub(crate) fn namespace(content: &[(&str, Code)]) -> Code {
    [&global("argparse", "Namespace")[..], b")\x81", &dict(content), b"b"].concat()
}

pub(crate) fn storage(class: &str, key: &str, elements: i64) -> Code {
    let id = [text("storage"), global("torch", class), text(key), text("cpu"), int(elements)];
    [&tuple(&id)[..], b"Q"].concat()
}

/// A tensor on a storage of `f32`.
pub(crate) fn tensor(key: &str, elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Code {
    let sizes = |sizes: &[i64]| tuple(&sizes.iter().map(|n| int(*n)).collect::<Vec<_>>());
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let storage = storage("FloatStorage", key, elements);
    let arguments = [storage, int(offset), sizes(shape), sizes(strides), boolean(false), hooks];
    call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
}

/// The whole pickle.
pub(crate) fn pickle(content: Code) -> Vec<u8> {
    [&[0x80, 2][..], &content, b"."].concat()
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A file as `torch.save` writes it.
pub(crate) fn write_zip(path: &Path, pickle: &[u8], storages: &[(&str, Vec<u8>)]) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut member = |name: String, bytes: &[u8]| {
        archive.start_file(name, options).unwrap();
        archive.write_all(bytes).unwrap();
    };
    member("archive/data.pkl".into(), pickle);
    member("archive/byteorder".into(), b"little");
    for (key, bytes) in storages {
        member(format!("archive/data/{key}"), bytes);
    }
    member("archive/version".into(), b"3\n");
    archive.finish().unwrap();
}

/// A file as `torch.save` wrote it before version 1.6. Numbers of elements are those of `f32`.
pub(crate) fn write_legacy(path: &Path, content: &[u8], storages: &[(&str, Vec<u8>)]) {
    let magic = [&[0x8a, 10][..], &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]].concat();
    let machine = dict(&[("little_endian", boolean(true)), ("protocol_version", int(1001))]);
    let names: Vec<Code> = storages.iter().map(|(key, _)| text(key)).collect();
    let mut bytes =
        [pickle(magic), pickle(int(1001)), pickle(machine), content.to_vec(), pickle(list(&names))].concat();
    for (_, storage) in storages {
        bytes.extend((storage.len() as u64 / 4).to_le_bytes());
        bytes.extend(storage);
    }
    std::fs::write(path, bytes).unwrap();
}
