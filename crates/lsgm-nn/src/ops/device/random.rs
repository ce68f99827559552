//! Random numbers that a device draws itself, the same as the host would.

use candle_core::{DType, Device, Result as Candle, Shape, Tensor};
use lsgm_core::{Draws, Result};

use super::{DeviceOp, apply1};
use crate::kernels::device::{Element, Launch, RANDOM, address, fresh};

/// Numbers that a block of the generator has.
const BLOCK: usize = 16;

/// A kernel that draws: the state follows the other arguments.
fn launch(kernel: &'static str, element: Element, draws: &Draws, addresses: [Option<u64>; 2]) -> Launch {
    Launch::new(&RANDOM, kernel, element)
        .addresses(addresses.into_iter().flatten())
        .long(draws.count as u64)
        .words(draws.key)
        .long(draws.stream)
        .long(draws.position)
}

/// As many threads as blocks that the numbers may lie in.
fn threads(draws: &Draws) -> usize {
    draws.count.div_ceil(BLOCK) + 1
}

/// The drawn numbers.
pub(crate) fn uniforms(draws: &Draws, shape: &Shape, device: &Device) -> Result<Tensor> {
    let y = fresh(shape, DType::F32, device)?;
    launch("uniforms", Element::F32, draws, [None, Some(address(&y)?)]).run(device, threads(draws))?;
    Ok(y)
}

/// Zeros where the drawn number is below `p`, else `x` times `scale`.
pub(crate) fn dropout(x: &Tensor, draws: Draws, p: f32, scale: f32) -> Result<Tensor> {
    apply1(Dropout { draws, p, scale }, [x])
}

struct Dropout {
    draws: Draws,
    p: f32,
    scale: f32,
}

impl Dropout {
    fn run(&self, device: &Device, element: Element, x: u64, y: u64) -> Candle<()> {
        launch("dropout", element, &self.draws, [Some(x), Some(y)])
            .numbers([f64::from(self.p), f64::from(self.scale)])
            .run(device, threads(&self.draws))
    }
}

impl DeviceOp<1> for Dropout {
    const NAME: &'static str = "dropout";

    fn forward(&self, device: &Device, element: Element, [x]: [u64; 1], y: u64) -> Candle<()> {
        self.run(device, element, x, y)
    }

    fn backward(&self, [x]: [&Tensor; 1], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 1]> {
        let dx = fresh(x.shape(), x.dtype(), x.device())?;
        self.run(x.device(), Element::of(x.dtype())?, address(gradient)?, address(&dx)?)?;
        Ok([Some(dx)])
    }
}
