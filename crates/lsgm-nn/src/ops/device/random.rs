//! Dropout, whose mask the device draws itself.

use candle_core::{Device, Result as Candle, Tensor};
use lsgm_core::{Draws, Result};

use super::{DeviceOp, apply1};
use crate::kernels::device::{Element, address, drawing, drawing_threads, fresh};

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
        drawing("dropout", element, &self.draws, &[x, y])
            .numbers([f64::from(self.p), f64::from(self.scale)])
            .run(device, drawing_threads(&self.draws))
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
