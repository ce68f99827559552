//! Encoded images one after another in a temporary file, each of which can be read alone.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use crate::lazy::Encoded;
use crate::{DataError, Result};

/// The images of a table too large for memory. A parquet file gives a row only together with the thousands of its row
/// group; training visits rows in random order.
pub(crate) struct Unpacked {
    /// Nameless where the system allows it, so that it goes away with the process.
    file: Mutex<BufWriter<File>>,
    /// Where each image ends.
    ends: Vec<u64>,
    origins: Vec<String>,
    pub(crate) labels: Option<Vec<u32>>,
}

impl Unpacked {
    pub(crate) fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Self { file: Mutex::new(BufWriter::new(file)), ends: Vec::new(), origins: Vec::new(), labels: None })
    }

    pub(crate) fn push(&mut self, bytes: &[u8], origin: String) -> Result<()> {
        self.file.get_mut().unwrap_or_else(PoisonError::into_inner).write_all(bytes).map_err(failed)?;
        self.ends.push(self.ends.last().copied().unwrap_or(0) + bytes.len() as u64);
        self.origins.push(origin);
        Ok(())
    }
}

fn failed(error: std::io::Error) -> DataError {
    DataError::Io { path: std::env::temp_dir(), source: error }
}

impl Encoded for Unpacked {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let Some(&end) = self.ends.get(index) else {
            return Err(DataError::Contract(format!("row {index} of {} was asked for", self.ends.len())));
        };
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let mut bytes = vec![0; (end - start) as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Seeking a writer writes out what it holds back.
        file.seek(SeekFrom::Start(start)).and_then(|_| file.get_mut().read_exact(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn origin(&self, index: usize) -> String {
        self.origins.get(index).cloned().unwrap_or_default()
    }
}
