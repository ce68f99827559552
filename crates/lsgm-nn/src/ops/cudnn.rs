//! Convolutions as nodes with a derivative of the same kind, which cuDNN computes on a GPU.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use lsgm_core::Result;

use super::device::gradients_of_parts;
use crate::kernels::conv::{Geometry, Part, data_gradient, forward, weight_gradient};
use crate::precision::{Precision, precision};

/// Whether the sizes are what cuDNN expects: those of the forward convolution. A transposed one may be padded beyond.
pub(crate) fn serves(g: &Geometry) -> bool {
    let output = |input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
        (input + 2 * padding).checked_sub(dilation * (kernel - 1) + 1).map(|last| last / stride + 1)
    };
    output(g.input.0, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0) == Some(g.output.0)
        && output(g.input.1, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1) == Some(g.output.1)
}

/// The convolution of `x: [B, G·C, H, W]` with `w: [G·O, C, kh, kw]`.
pub(crate) fn conv(g: &Geometry, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    in_precision(x, w, |x, w| x.apply_op2(w, Convolution { geometry: *g, part: Part::Forward }))
}

/// The transposed convolution of `y: [B, G·O, H', W']` with `w: [G·O, C, kh, kw]`.
pub(crate) fn conv_transpose(g: &Geometry, y: &Tensor, w: &Tensor) -> Result<Tensor> {
    in_precision(y, w, |y, w| y.apply_op2(w, Convolution { geometry: *g, part: Part::DataGradient }))
}

/// `f` of contiguous factors of one type, rounded to bf16 where the pass asks for it.
fn in_precision(a: &Tensor, b: &Tensor, f: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    if precision() != Precision::Bf16 || a.dtype() != DType::F32 {
        return Ok(f(&a, &b)?);
    }
    Ok(f(&a.to_dtype(DType::BF16)?, &b.to_dtype(DType::BF16)?)?.to_dtype(DType::F32)?)
}

struct Convolution {
    geometry: Geometry,
    part: Part,
}

impl Convolution {
    /// Another part of the same convolution, of inputs that are constants.
    fn part(&self, part: Part, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Self { geometry: self.geometry, part })
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    /// The kernels of the CPU, which hold the derivative below to what it is on a GPU.
    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let (Some((a0, a1)), Some((b0, b1))) = (la.contiguous_offsets(), lb.contiguous_offsets()) else {
            candle_core::bail!("convolution: an input is not contiguous")
        };
        let (a, b) = (&a.as_slice::<f64>()?[a0..a1], &b.as_slice::<f64>()?[b0..b1]);
        let result = match self.part {
            Part::Forward => forward(g, a, b, None),
            Part::DataGradient => data_gradient(g, a, b, None),
            Part::WeightGradient => weight_gradient(g, a, b),
        };
        Ok((CpuStorage::F64(result), self.part.shape(&self.geometry)))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        a: &candle_core::CudaStorage,
        la: &Layout,
        b: &candle_core::CudaStorage,
        lb: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let shape = self.part.shape(&self.geometry);
        let result = crate::kernels::cudnn::run(&self.geometry, self.part, (a, la), (b, lb), shape.elem_count())?;
        Ok((result, shape))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [da, db] = gradients_of_parts(self.part, [a, b], gradient, |part, a, b| self.part(part, a, b))?;
        Ok((da, db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{self, Conv2dConfig, ConvTranspose2dConfig};
    use candle_core::{Device, Var};
    use lsgm_core::Rng;

    fn var(seed: u64, dims: [usize; 4]) -> Var {
        let values = Rng::new(seed).normal_tensor(dims.to_vec(), DType::F64, &Device::Cpu).unwrap();
        Var::from_tensor(&values).unwrap()
    }

    /// The value, and the gradients of the sum of its squares.
    fn run(x: &Var, w: &Var, f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> [Vec<f64>; 3] {
        let y = f(x, w).unwrap();
        let store = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        [&y, store.get(x).unwrap(), store.get(w).unwrap()].map(|t| t.flatten_all().unwrap().to_vec1().unwrap())
    }

    fn assert_close(a: &[Vec<f64>; 3], b: &[Vec<f64>; 3]) {
        for (a, b) in a.iter().zip(b) {
            let size = b.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert_eq!(a.len(), b.len());
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * size));
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_ops() {
        let (stride, padding, dilation, groups) = ((2, 1), (1, 2), (1, 2), 2);
        let g = Geometry {
            batch: 3,
            groups,
            cin: 2,
            cout: 3,
            input: (7, 8),
            kernel: (3, 2),
            stride,
            padding,
            dilation,
            output: (4, 10),
        };
        assert!(serves(&g));
        let w = var(1, [6, 2, 3, 2]);
        let (x, y) = (var(2, [3, 4, 7, 8]), var(3, [3, 6, 4, 10]));
        let config = Conv2dConfig { stride, padding, dilation, groups };
        assert_close(&run(&x, &w, |x, w| conv(&g, x, w)), &run(&x, &w, |x, w| ops::conv2d(x, w, None, &config)));
        let config = ConvTranspose2dConfig { stride, padding, dilation, groups, ..Default::default() };
        let transposed = run(&y, &w, |y, w| ops::conv_transpose2d(y, w, None, &config));
        assert_close(&run(&y, &w, |y, w| conv_transpose(&g, y, w)), &transposed);
    }

    #[test]
    fn padding_beyond_the_forward_convolution_is_not_for_cudnn() {
        let line = Geometry {
            batch: 1,
            groups: 1,
            cin: 1,
            cout: 1,
            input: (1, 5),
            kernel: (1, 2),
            stride: (1, 1),
            padding: (0, 0),
            dilation: (1, 3),
            output: (1, 2),
        };
        assert!(serves(&line));
        assert!(!serves(&Geometry { input: (1, 6), ..line }));
        assert!(!serves(&Geometry { input: (1, 3), ..line }));
    }
}
