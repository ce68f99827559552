use std::io::{BufRead, ErrorKind, Read};

/// The largest pickle that is read. Those of real checkpoints have a few MB: numbers lie in files of their own.
const LARGEST: u64 = 1 << 26;

/// The bytes of a pickle, and how many were read.
pub(crate) struct Source<R> {
    reader: R,
    position: u64,
}

impl<R: BufRead> Source<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, position: 0 }
    }

    /// Number of bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(told)?;
        self.advance(N)?;
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    /// `length` bytes. No more memory is taken than bytes are there.
    pub(crate) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let allowed = length.min(LARGEST.saturating_sub(self.position));
        self.reader.by_ref().take(allowed).read_to_end(&mut bytes).map_err(told)?;
        if bytes.len() as u64 != length {
            return Err(format!("it ends within a text or number of {length} bytes"));
        }
        self.advance(bytes.len())?;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, length: u64) -> Result<String, String> {
        String::from_utf8(self.bytes(length)?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    /// What comes before the next line feed.
    pub(crate) fn line(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(told)?;
        self.advance(bytes.len())?;
        if bytes.pop() != Some(b'\n') {
            return Err("it ends within a line, or a line is too long".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn advance(&mut self, bytes: usize) -> Result<(), String> {
        self.position += bytes as u64;
        if self.position > LARGEST { Err(format!("it is longer than {} MiB", LARGEST >> 20)) } else { Ok(()) }
    }
}

const LONGEST_LINE: u64 = 1 << 12;

fn told(error: std::io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        _ => error.to_string(),
    }
}
