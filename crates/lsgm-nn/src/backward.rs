//! The backward pass.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use lsgm_core::Result;

use crate::checkpoint::last_segment;

thread_local! {
    /// Gradients of variables that the ops of this crate have computed in the current pass, if one runs.
    static VARIABLES: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// The gradients of `loss` (of the sum of its elements) with respect to every variable that it depends on.
///
/// The same as [`Tensor::backward`], but less work: that one adds every gradient to zeros first, and here the ops of this
/// crate hand the gradients of variables over as they are. It also goes through what [`crate::checkpoint`] has left out.
///
/// # Errors
/// A failed tensor operation.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let mut store = one_pass(loss)?;
    while let Some(segment) = last_segment() {
        if let Some(gradient) = store.remove(segment.output()) {
            // A pass starts from the sum of all elements, which nobody has to know.
            store.extend(one_pass(&(segment.again()? * &gradient)?)?)?;
        }
    }
    Ok(store)
}

/// As far as the graph of `loss` goes.
fn one_pass(loss: &Tensor) -> Result<GradStore> {
    let pass = Pass::start();
    let all = loss.backward()?;
    // candle leaves gradients of constants behind, some as large as the activations; and it computes some gradients from
    // tensors of the graph, which they would keep alive.
    let mut store = GradStore::default();
    for variable in loss.sorted_nodes().into_iter().filter(|node| node.is_variable()) {
        if let Some(gradient) = all.get(variable) {
            store.insert(variable, gradient.detach());
        }
    }
    drop(all);
    for (id, gradient) in pass.finish() {
        let total = match store.get_id(id) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        store.insert_id(id, total);
    }
    Ok(store)
}

/// Take the gradient of a variable over if [`backward`] runs on this thread; else it comes back.
pub(crate) fn hand_over(variable: &Tensor, gradient: Tensor) -> candle_core::Result<Option<Tensor>> {
    VARIABLES.with_borrow_mut(|pass| {
        let Some(gradients) = pass.as_mut().filter(|_| variable.is_variable()) else { return Ok(Some(gradient)) };
        let gradient = gradient.detach();
        let total = match gradients.remove(&variable.id()) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        gradients.insert(variable.id(), total);
        Ok(None)
    })
}

/// A pass on this thread; it ends when this is dropped, whatever happens.
struct Pass {
    outer: Option<HashMap<TensorId, Tensor>>,
}

impl Pass {
    fn start() -> Self {
        Self { outer: VARIABLES.replace(Some(HashMap::new())) }
    }

    fn finish(self) -> HashMap<TensorId, Tensor> {
        VARIABLES.take().unwrap_or_default()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        VARIABLES.replace(self.outer.take());
    }
}
