//! Random numbers that a device draws itself, the same as the host would.

use candle_core::{DType, Device, Result, Shape, Tensor};
use lsgm_core::Draws;

use super::{Element, Launch, RANDOM, THREADS, address, fresh};

/// Numbers that a block of threads makes.
const NUMBERS: usize = 16 * THREADS as usize;

/// A kernel that draws: its addresses, how many numbers, the state of the generator. Other arguments follow.
pub(crate) fn drawing(kernel: &'static str, element: Element, draws: &Draws, addresses: &[u64]) -> Launch {
    Launch::new(&RANDOM, kernel, element)
        .addresses(addresses)
        .long(draws.count as u64)
        .words(draws.key)
        .long(draws.stream)
        .long(draws.position)
}

/// As many threads as make all numbers, which may begin and end within a block of them.
pub(crate) fn drawing_threads(draws: &Draws) -> usize {
    (draws.count + 16).div_ceil(NUMBERS) * THREADS as usize
}

/// The drawn numbers.
pub(super) fn uniforms(draws: &Draws, shape: &Shape, device: &Device) -> Result<Tensor> {
    let y = fresh(shape, DType::F32, device)?;
    drawing("uniforms", Element::F32, draws, &[address(&y)?]).run(device, drawing_threads(draws))?;
    Ok(y)
}
