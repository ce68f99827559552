//! Functions of single elements.

use candle_core::{Device, Result as Candle, Tensor};
use lsgm_core::Result;

use super::{DeviceOp, apply1};
use crate::kernels::device::{Element, Launch, POINTWISE, address, fresh};
use crate::kernels::pointwise::Function;

/// Elements of a thread, as in the source.
const EACH: usize = 8;

pub(crate) fn function(x: &Tensor, function: Function) -> Result<Tensor> {
    apply1(Pointwise { function, elements: x.elem_count() }, [x])
}

struct Pointwise {
    function: Function,
    elements: usize,
}

impl Pointwise {
    /// Its number in the source.
    fn number(&self) -> usize {
        match self.function {
            Function::Relu => 0,
            Function::Silu => 1,
            Function::Gelu => 2,
            Function::Elu => 3,
            Function::Softplus => 4,
            Function::Sigmoid => 5,
        }
    }

    fn run(&self, kernel: &'static str, device: &Device, element: Element, addresses: &[u64]) -> Candle<()> {
        Launch::new(&POINTWISE, kernel, element)
            .addresses(addresses)
            .long(self.elements as u64)
            .sizes([self.number()])
            .run(device, self.elements.div_ceil(EACH))
    }
}

impl DeviceOp<1> for Pointwise {
    const NAME: &'static str = "activation";

    fn forward(&self, device: &Device, element: Element, [x]: [u64; 1], y: u64) -> Candle<()> {
        self.run("apply", device, element, &[x, y])
    }

    fn backward(&self, [x]: [&Tensor; 1], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 1]> {
        let dx = fresh(x.shape(), x.dtype(), x.device())?;
        let addresses = [address(x)?, address(gradient)?, address(&dx)?];
        self.run("apply_gradient", x.device(), Element::of(x.dtype())?, &addresses)?;
        Ok([Some(dx)])
    }
}
