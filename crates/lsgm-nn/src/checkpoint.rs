//! Activation checkpointing: less memory for more computation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use candle_core::{Tensor, Var};
use lsgm_core::{Pass, Result};

thread_local! {
    /// Segments of the pass that runs on this thread, in the order of their outputs, if it is a checkpointed one.
    static TAPE: RefCell<Option<Vec<Segment>>> = const { RefCell::new(None) };
    /// Whether a segment runs for the second time.
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// A part of a pass of which only the ends are kept.
pub(crate) struct Segment {
    inputs: Vec<Tensor>,
    function: Function,
    /// Its output, from which the rest of the pass starts as from a variable.
    output: Var,
}

type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

impl Segment {
    pub(crate) fn output(&self) -> &Tensor {
        self.output.as_tensor()
    }

    /// The output with everything between it and the inputs.
    pub(crate) fn again(&self) -> Result<Tensor> {
        let _outer = Again(AGAIN.replace(true));
        without_tape(|| (self.function)(&self.inputs))
    }
}

/// Take the last segment of this thread's pass.
pub(crate) fn last_segment() -> Option<Segment> {
    TAPE.with_borrow_mut(|tape| tape.as_mut().and_then(Vec::pop))
}

/// Whether a segment runs for the second time: what a first run has counted is not counted again.
pub(crate) fn runs_again() -> bool {
    AGAIN.get()
}

/// Run `f`, a pass forwards and [`crate::backward`], in which every [`checkpoint`] keeps its inputs and its output alone.
/// With `on = false` this is `f()`.
///
/// ```
/// use candle_core::{Tensor, Var, Device};
/// use lsgm_nn::{backward, checkpoint, with_checkpoints};
///
/// let x = Var::new(&[1f64, 2.0], &Device::Cpu)?;
/// let gradients = with_checkpoints(true, || {
///     let cubes = checkpoint(&[x.as_tensor()], |x| Ok((x[0].sqr()? * &x[0])?))?;
///     backward(&cubes.sum_all()?)
/// })?;
/// assert_eq!(gradients.get(x.as_tensor()).unwrap().to_vec1::<f64>()?, [3.0, 12.0]);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
pub fn with_checkpoints<R>(on: bool, f: impl FnOnce() -> R) -> R {
    if !on {
        return f();
    }
    let _outer = Tape(TAPE.replace(Some(Vec::new())));
    f()
}

/// `function(inputs)`. Within [`with_checkpoints`] nothing between the two is kept for the backward pass, which runs
/// `function` a second time.
///
/// The second run has to compute the same: noise comes from a generator that the function holds a copy of. Layers whose
/// running statistics follow the batches, such as [`crate::BatchNorm`], follow the first run alone.
///
/// # Errors
/// Those of `function`.
pub fn checkpoint(inputs: &[&Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor> + 'static) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    let output = without_tape(|| function(&inputs))?;
    if TAPE.with_borrow(Option::is_none) || !output.track_op() {
        return Ok(output);
    }
    let output = Var::from_tensor(&output.detach())?;
    let start = output.as_tensor().clone();
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.push(Segment { inputs, function: Box::new(function), output });
        }
    });
    Ok(start)
}

/// [`checkpoint`] for a function that takes part in a [`Pass`]: its second run draws the same noise.
///
/// # Errors
/// Those of `function`.
pub fn checkpoint_in(
    pass: &mut Pass<'_>,
    inputs: &[&Tensor],
    function: impl Fn(&[Tensor], &mut Pass<'_>) -> Result<Tensor> + 'static,
) -> Result<Tensor> {
    let (training, start) = (pass.training, pass.rng.clone());
    let end = Rc::new(RefCell::new(None));
    let reached = Rc::clone(&end);
    let output = checkpoint(inputs, move |inputs| {
        let mut rng = start.clone();
        let output = function(inputs, &mut Pass { training, rng: &mut rng })?;
        reached.replace(Some(rng));
        Ok(output)
    })?;
    if let Some(rng) = end.take() {
        *pass.rng = rng;
    }
    Ok(output)
}

/// Segments within a segment are part of it.
fn without_tape<R>(f: impl FnOnce() -> R) -> R {
    let _outer = Tape(TAPE.take());
    f()
}

/// The tape to go back to when this is dropped, whatever happens.
struct Tape(Option<Vec<Segment>>);

impl Drop for Tape {
    fn drop(&mut self) {
        TAPE.replace(self.0.take());
    }
}

/// What to go back to when this is dropped.
struct Again(bool);

impl Drop for Again {
    fn drop(&mut self) {
        AGAIN.set(self.0);
    }
}
