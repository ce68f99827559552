use std::collections::BTreeMap;

use candle_core::Tensor;
use lsgm_core::{ParamStore, Result};

use crate::run_dir::Checkpoint;
use crate::state::TrainState;

/// Copy everything that training needs to continue from here.
pub(crate) fn capture(
    model: &ParamStore,
    ema: &ParamStore,
    optimizer: &BTreeMap<String, Tensor>,
    state: &TrainState,
) -> Result<Checkpoint> {
    let copy = |tensors: &BTreeMap<String, Tensor>| -> Result<BTreeMap<String, Tensor>> {
        tensors.iter().map(|(k, t)| Ok((k.clone(), t.detach().copy()?))).collect()
    };
    Ok(Checkpoint {
        model: copy(&model.tensors())?,
        ema: copy(&ema.tensors())?,
        optimizer: copy(optimizer)?,
        state: state.clone(),
    })
}
