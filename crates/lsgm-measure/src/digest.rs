use candle_core::DType;
use lsgm_core::{Batch, Result};
use sha2::{Digest, Sha256};

/// A fingerprint of data: the number of items, and the content of some of them.
pub(crate) fn digest(items: usize, probe: &Batch) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update((items as u64).to_le_bytes());
    for dim in probe.x.dims() {
        hash.update((*dim as u64).to_le_bytes());
    }
    for value in probe.x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()? {
        hash.update(value.to_le_bytes());
    }
    if let Some(labels) = &probe.labels {
        for label in labels.to_vec1::<u32>()? {
            hash.update(label.to_le_bytes());
        }
    }
    Ok(hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect())
}
