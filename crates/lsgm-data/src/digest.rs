use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{DataError, Result};

/// Length and SHA-256 of a file's content; gzip is undone first.
pub(crate) fn digest(path: &Path) -> Result<(u64, String)> {
    let mut content = crate::idx::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match content.read(&mut buffer).map_err(|e| DataError::corrupt(path, format!("byte {bytes}"), e))? {
            0 => break,
            n => {
                hash.update(buffer.get(..n).unwrap_or_default());
                bytes += n as u64;
            }
        }
    }
    Ok((bytes, hash.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

/// The SHA-256 that a file of the hub's cache should have: large files lie in `blobs/` under it.
pub(crate) fn blob_digest(path: &Path) -> Option<String> {
    let blob = std::fs::canonicalize(path).ok()?;
    let in_blobs = blob.parent()?.file_name()? == "blobs";
    let name = blob.file_name()?.to_str()?;
    (in_blobs && name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).then(|| name.to_owned())
}
