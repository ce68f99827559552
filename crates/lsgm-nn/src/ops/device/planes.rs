//! What is done to whole planes of `[batch, channels, ..]`.

use candle_core::{DType, Device, Result as Candle, Shape, Tensor};
use lsgm_core::Result;

use super::{DeviceOp, apply1, apply2, apply3};
use crate::kernels::device::{Element, Launch, PLANES, address, fresh, lanes};

#[derive(Debug, Clone, Copy)]
struct Sizes {
    planes: usize,
    positions: usize,
}

impl Sizes {
    /// Of `x`, whose first two dimensions number the planes.
    fn of(x: &Tensor) -> Result<Self> {
        let planes = x.dim(0)? * x.dim(1)?;
        Ok(Self { planes, positions: x.elem_count() / planes })
    }

    fn lanes(&self) -> usize {
        lanes(self.positions)
    }

    fn threads(&self) -> usize {
        self.planes * self.lanes()
    }

    /// What most kernels are told.
    fn numbers(&self) -> [usize; 3] {
        [self.planes, self.positions, self.lanes()]
    }

    /// The sum of each plane of `x`, in f32.
    fn sums(&self, device: &Device, element: Element, x: u64) -> Candle<Tensor> {
        let sums = fresh(self.planes, DType::F32, device)?;
        Launch::new(&PLANES, "plane_sums", element)
            .addresses(&[x, address(&sums)?])
            .sizes(self.numbers())
            .run(device, self.threads())?;
        Ok(sums)
    }
}

/// `x: [B, C, ..]` and a bias of each channel.
pub(crate) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply2(AddBias { sizes: Sizes::of(x)?, channels: bias.elem_count() }, [x, bias])
}

struct AddBias {
    sizes: Sizes,
    channels: usize,
}

impl DeviceOp<2> for AddBias {
    const NAME: &'static str = "add_bias";

    fn parameters(&self) -> [bool; 2] {
        [false, true]
    }

    fn forward(&self, device: &Device, element: Element, [x, bias]: [u64; 2], y: u64) -> Candle<()> {
        Launch::new(&PLANES, "add_bias", element)
            .addresses(&[x, bias, y])
            .sizes([self.sizes.planes, self.channels, self.sizes.positions, self.sizes.lanes()])
            .run(device, self.sizes.threads())
    }

    fn backward(&self, [x, bias]: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let of_bias = || {
            let sums = self.sizes.sums(x.device(), Element::of(x.dtype())?, address(gradient)?)?;
            sums.reshape(((), self.channels))?.sum(0)
        };
        Ok([x.track_op().then(|| gradient.clone()), bias.track_op().then(of_bias).transpose()?])
    }
}

/// The mean of each plane.
pub(crate) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    apply1(Mean { sizes: Sizes::of(x)?, output: (x.dim(0)?, x.dim(1)?) }, [x])
}

struct Mean {
    sizes: Sizes,
    output: (usize, usize),
}

impl DeviceOp<1> for Mean {
    const NAME: &'static str = "global_avg_pool";

    fn shape(&self, _: &Shape) -> Shape {
        self.output.into()
    }

    fn forward(&self, device: &Device, element: Element, [x]: [u64; 1], y: u64) -> Candle<()> {
        Launch::new(&PLANES, "plane_means", element)
            .addresses(&[x, y])
            .sizes(self.sizes.numbers())
            .run(device, self.sizes.threads())
    }

    fn backward(&self, [x]: [&Tensor; 1], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 1]> {
        // The number of positions in bf16 would be another one.
        let share = (gradient.to_dtype(DType::F32)? / self.sizes.positions as f64)?.to_dtype(x.dtype())?;
        let share = share.reshape((self.sizes.planes, 1))?;
        let spread = share.broadcast_as((self.sizes.planes, self.sizes.positions))?.contiguous()?;
        Ok([Some(spread.reshape(x.shape())?)])
    }
}

pub(crate) fn squeeze_excite(x: &Tensor, logits: &Tensor) -> Result<Tensor> {
    apply2(Gate { sizes: Sizes::of(x)?, scale: 1.0 }, [x, logits])
}

pub(crate) fn gated_residual(skip: &Tensor, x: &Tensor, logits: &Tensor, scale: f64) -> Result<Tensor> {
    apply3(Gate { sizes: Sizes::of(x)?, scale }, [skip, x, logits])
}

struct Gate {
    sizes: Sizes,
    scale: f64,
}

impl Gate {
    fn run(&self, device: &Device, element: Element, addresses: [u64; 4]) -> Candle<()> {
        Launch::new(&PLANES, "gated", element)
            .addresses(&addresses)
            .sizes(self.sizes.numbers())
            .numbers([self.scale])
            .run(device, self.sizes.threads())
    }

    fn gradients(&self, [x, logits]: [&Tensor; 2], gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let device = x.device();
        let (dx, dlogits) = (fresh(x.shape(), x.dtype(), device)?, fresh(logits.shape(), x.dtype(), device)?);
        Launch::new(&PLANES, "gated_gradients", Element::of(x.dtype())?)
            .addresses(&[address(x)?, address(logits)?, address(gradient)?, address(&dx)?, address(&dlogits)?])
            .sizes(self.sizes.numbers())
            .numbers([self.scale])
            .run(device, self.sizes.threads())?;
        Ok([x.track_op().then_some(dx), logits.track_op().then_some(dlogits)])
    }
}

impl DeviceOp<2> for Gate {
    const NAME: &'static str = "squeeze_excite";

    fn forward(&self, device: &Device, element: Element, [x, logits]: [u64; 2], y: u64) -> Candle<()> {
        self.run(device, element, [0, x, logits, y])
    }

    fn backward(&self, inputs: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        self.gradients(inputs, gradient)
    }
}

impl DeviceOp<3> for Gate {
    const NAME: &'static str = "gated_residual";

    fn forward(&self, device: &Device, element: Element, [skip, x, logits]: [u64; 3], y: u64) -> Candle<()> {
        self.run(device, element, [skip, x, logits, y])
    }

    fn backward(&self, inputs: [&Tensor; 3], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 3]> {
        let [skip, x, logits] = inputs;
        let [dx, dlogits] = self.gradients([x, logits], gradient)?;
        Ok([skip.track_op().then(|| gradient.clone()), dx, dlogits])
    }
}

pub(crate) fn snake(x: &Tensor, alpha: &Tensor) -> Result<Tensor> {
    apply2(Snake { sizes: Sizes::of(x)?, channels: alpha.elem_count() }, [x, alpha])
}

struct Snake {
    sizes: Sizes,
    channels: usize,
}

impl Snake {
    fn run(&self, kernel: &'static str, device: &Device, element: Element, addresses: &[u64]) -> Candle<()> {
        Launch::new(&PLANES, kernel, element)
            .addresses(addresses)
            .sizes([self.sizes.planes, self.channels, self.sizes.positions, self.sizes.lanes()])
            .run(device, self.sizes.threads())
    }
}

impl DeviceOp<2> for Snake {
    const NAME: &'static str = "snake";

    fn parameters(&self) -> [bool; 2] {
        [false, true]
    }

    fn forward(&self, device: &Device, element: Element, [x, alpha]: [u64; 2], y: u64) -> Candle<()> {
        self.run("snake", device, element, &[x, alpha, y])
    }

    fn backward(&self, [x, alpha]: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let device = x.device();
        let (dx, parts) = (fresh(x.shape(), x.dtype(), device)?, fresh(self.sizes.planes, DType::F32, device)?);
        let addresses = [address(x)?, address(alpha)?, address(gradient)?, address(&dx)?, address(&parts)?];
        self.run("snake_gradients", device, Element::of(x.dtype())?, &addresses)?;
        let dalpha = || parts.reshape(((), self.channels))?.sum(0);
        Ok([x.track_op().then_some(dx), alpha.track_op().then(dalpha).transpose()?])
    }
}
