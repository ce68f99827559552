//! PyTorch files: a zip archive with a pickle and one member for each storage, or the older form, pickles and storages one
//! after another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::Tensor;
use zip::ZipArchive;

use crate::pickle::{self, Id, Node, Pickle, Source, TensorRef};
use crate::storage::Storages;
use crate::{ImportError, Result};

/// An open PyTorch file.
pub(crate) struct TorchFile<'a> {
    path: &'a Path,
    pickle: Pickle,
    storages: Storages,
    /// Bytes of tensors that may still be read.
    left: u64,
}

/// Bytes of tensors for each byte of a file. Parameters may share a storage, but a few bytes could name one of gigabytes a
/// million times.
const SHARING: u64 = 8;

/// What the first pickle of an old file holds: 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Storages in one file.
const MOST_STORAGES: usize = 1 << 20;

impl<'a> TorchFile<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| ImportError::io(path, e))?;
        let length = file.metadata().map_err(|e| ImportError::io(path, e))?.len();
        let mut file = BufReader::new(file);
        let start = file.fill_buf().map_err(|e| ImportError::io(path, e))?;
        let opened = match start {
            [b'P', b'K', ..] => open_zip(file),
            [0x80, ..] => open_legacy(file),
            [] => Err("is empty".to_owned()),
            _ => Err("is no PyTorch file: it is neither a zip archive nor a pickle".to_owned()),
        };
        let (pickle, storages) = opened.map_err(|message| ImportError::file(path, message))?;
        Ok(Self { path, pickle, storages, left: length.saturating_mul(SHARING) })
    }

    /// What the file's pickle describes.
    pub(crate) fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// Whether a node is a dictionary of tensors.
    pub(crate) fn is_state_dict(&self, id: Id) -> bool {
        self.pickle.entries(id).iter().any(|(_, value)| matches!(self.pickle.node(*value), Node::Tensor(_)))
    }

    /// The tensors of a state dict, in its order.
    ///
    /// # Errors
    /// The tensor that cannot be read, by name.
    pub(crate) fn tensors(&mut self, id: Id) -> Result<Vec<(String, Tensor)>> {
        let mut found = Vec::new();
        for (name, value) in self.pickle.entries(id) {
            if let Node::Tensor(tensor) = self.pickle.node(value) {
                let read = read(&mut self.storages, &mut self.left, tensor);
                let tensor = read.map_err(|m| ImportError::file(self.path, format!("tensor `{name}`: {m}")))?;
                found.push((name.to_owned(), tensor));
            }
        }
        Ok(found)
    }

    /// One tensor.
    pub(crate) fn tensor(&mut self, id: Id, name: &str) -> Result<Option<Tensor>> {
        let Node::Tensor(tensor) = self.pickle.node(id) else { return Ok(None) };
        let read = read(&mut self.storages, &mut self.left, tensor);
        read.map(Some).map_err(|m| ImportError::file(self.path, format!("tensor `{name}`: {m}")))
    }
}

/// Read a tensor; all that are read may take so many bytes more.
fn read(storages: &mut Storages, left: &mut u64, tensor: &TensorRef) -> Result<Tensor, String> {
    let tensor = storages.tensor(tensor)?;
    let bytes = (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
    let remaining = left.checked_sub(bytes);
    *left = remaining.ok_or("with it the file's tensors take more than eight times the bytes that it has")?;
    Ok(tensor)
}

fn open_zip(file: BufReader<File>) -> Result<(Pickle, Storages), String> {
    let damaged = |e: zip::result::ZipError| format!("is a damaged zip archive: {e}; copy or download it again");
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    let names: Vec<String> = archive.file_names().filter_map(|n| Some(n.ok()?.into_owned())).collect();
    let Some(folder) = names.iter().find_map(|name| name.strip_suffix("data.pkl")) else {
        return Err("is a zip archive, but not one of PyTorch: it has no `data.pkl`".to_owned());
    };
    let folder = folder.to_owned();
    if let Ok(member) = archive.by_name(&format!("{folder}byteorder")) {
        let mut order = String::new();
        // An order that cannot be read is the usual one.
        let _ = member.take(16).read_to_string(&mut order);
        if order.trim() == "big" {
            return Err("was written on a machine of the other byte order, which is not supported".to_owned());
        }
    }
    let member = archive.by_name(&format!("{folder}data.pkl")).map_err(damaged)?;
    let pickle = pickle::read(&mut Source::new(BufReader::new(member)))
        .map_err(|message| format!("`{folder}data.pkl` of the archive: {message}"))?;
    Ok((pickle, Storages::Zip(Box::new(archive), folder)))
}

/// Magic number, version, facts about the machine, content, names of storages: five pickles. Then each storage: its length
/// and its numbers.
fn open_legacy(mut file: BufReader<File>) -> Result<(Pickle, Storages), String> {
    let mut source = Source::new(&mut file);
    let magic = pickle::read(&mut source)?;
    if *magic.node(magic.root()) != Node::Bytes(MAGIC.to_vec()) {
        return Err("is a pickle, but not one of PyTorch".to_owned());
    }
    let version = pickle::read(&mut source)?;
    if *version.node(version.root()) != Node::Int(1001) {
        return Err("has a version of PyTorch's old form that is not known".to_owned());
    }
    let machine = pickle::read(&mut source)?;
    let little = machine.get(machine.root(), "little_endian");
    if little.is_some_and(|id| *machine.node(id) == Node::Bool(false)) {
        return Err("was written on a machine of the other byte order, which is not supported".to_owned());
    }
    let content = pickle::read(&mut source)?;
    let names = pickle::read(&mut source)?;
    let members = names.members(names.root());
    if members.len() > MOST_STORAGES {
        return Err(format!("announces {} storages", members.len()));
    }
    let sizes = element_sizes(&content);
    let mut places = BTreeMap::new();
    let mut at = source.position();
    for member in members {
        let Node::Text(key) = names.node(*member) else { return Err("a storage has no name".to_owned()) };
        let ends = || format!("ends before storage `{key}`; copy or download it again");
        file.seek(SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| ends())?;
        let elements = u64::from_le_bytes(length);
        places.insert(key.clone(), (at + 8, elements));
        // A storage that no tensor uses can only be the last: its element type is known to nobody.
        let Some(size) = sizes.get(key) else { break };
        let bytes = elements.checked_mul(*size).and_then(|bytes| at.checked_add(8)?.checked_add(bytes));
        at = bytes.ok_or_else(ends)?;
    }
    Ok((content, Storages::Legacy(file, places)))
}

/// Bytes of an element of each storage that a pickle names.
fn element_sizes(content: &Pickle) -> BTreeMap<String, u64> {
    let storages = content.nodes().filter_map(|node| match node {
        Node::Storage(storage) => Some(storage),
        _ => None,
    });
    storages.filter_map(|s| Some((s.key.clone(), s.element_type()?.size() as u64))).collect()
}
