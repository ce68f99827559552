//! Trained networks in a folder of the user's, from which they may vanish at any time.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::Device;
use lsgm_core::ParamStore;

/// Fill `store` with the network in `path`; `false` where there is none that fits.
pub(crate) fn restore(path: &Path, store: &ParamStore, device: &Device) -> bool {
    let Ok(tensors) = candle_core::safetensors::load(path, device) else { return false };
    store.load(&tensors.into_iter().collect()).is_ok()
}

/// Keep the network in `store` as `path`, written aside and renamed. A folder that cannot be written costs the next
/// evaluation a training and is no reason to end this one.
pub(crate) fn keep(path: &Path, store: &ParamStore) {
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> Option<()> {
        fs::create_dir_all(path.parent()?).ok()?;
        let tensors: HashMap<_, _> = store.tensors().into_iter().collect();
        candle_core::safetensors::save(&tensors, &aside).ok()?;
        fs::rename(&aside, path).ok()
    };
    if write().is_none() {
        // Nothing half written stays behind, if it can be helped.
        let _ = fs::remove_file(&aside);
    }
}
