//! The three maps of a convolution, and depthwise ones as kernels of our own.

use candle_core::{Device, Result as Candle, Shape, Tensor, bail};
use lsgm_core::Result;

use super::{DeviceOp, apply2};
use crate::kernels::conv::{Geometry, Part};
use crate::kernels::device::{DEPTHWISE, Element, Launch, THREADS, address, fresh, lanes};

/// The gradients of the inputs of `part` that are tracked, by way of `run`, which makes a part of its inputs.
pub(crate) fn gradients_of_parts(
    part: Part,
    [a, b]: [&Tensor; 2],
    gradient: &Tensor,
    run: impl Fn(Part, &Tensor, &Tensor) -> Candle<Tensor>,
) -> Candle<[Option<Tensor>; 2]> {
    let of_a = || match part {
        Part::Forward => run(Part::DataGradient, gradient, b),
        Part::DataGradient => run(Part::Forward, gradient, b),
        Part::WeightGradient => bail!("convolution: there is no second derivative"),
    };
    let of_b = || match part {
        Part::DataGradient => run(Part::WeightGradient, gradient, a),
        _ => run(Part::WeightGradient, a, gradient),
    };
    Ok([a.track_op().then(of_a).transpose()?, b.track_op().then(of_b).transpose()?])
}

/// A part of a convolution with one filter for each channel, of two inputs of one type.
pub(crate) fn depthwise(g: &Geometry, part: Part, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply2(Depthwise { geometry: *g, part }, [a, b])
}

struct Depthwise {
    geometry: Geometry,
    part: Part,
}

impl Depthwise {
    fn run(&self, part: Part, device: &Device, element: Element, addresses: [u64; 3]) -> Candle<()> {
        let g = &self.geometry;
        let elements = part.shape(g).elem_count();
        let (kernel, threads) = match part {
            Part::Forward => ("depthwise", elements),
            Part::DataGradient => ("depthwise_data_gradient", elements),
            Part::WeightGradient => ("depthwise_weight_gradient", elements * THREADS as usize),
        };
        let launch = Launch::new(&DEPTHWISE, kernel, element).addresses(&addresses);
        let counted = match part {
            Part::WeightGradient => launch.sizes([g.batch, (4 * lanes(g.output.0 * g.output.1)).min(THREADS as usize)]),
            _ => launch.sizes([elements]),
        };
        let pairs = [g.input, g.kernel, g.output, g.stride, g.padding, g.dilation];
        counted.sizes([g.groups]).sizes(pairs.into_iter().flat_map(|(a, b)| [a, b])).run(device, threads)
    }
}

impl DeviceOp<2> for Depthwise {
    const NAME: &'static str = "depthwise convolution";

    fn shape(&self, _: &Shape) -> Shape {
        self.part.shape(&self.geometry)
    }

    fn forward(&self, device: &Device, element: Element, [a, b]: [u64; 2], output: u64) -> Candle<()> {
        self.run(self.part, device, element, [a, b, output])
    }

    fn backward(&self, inputs: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        gradients_of_parts(self.part, inputs, gradient, |part, a, b| {
            let found = fresh(part.shape(&self.geometry), a.dtype(), a.device())?;
            let (a, b) = (a.contiguous()?, b.contiguous()?);
            self.run(part, a.device(), Element::of(a.dtype())?, [address(&a)?, address(&b)?, address(&found)?])?;
            Ok(found)
        })
    }
}
