//! Group norm and batch norm with what follows them.

use candle_core::{D, DType, Device, Result as Candle, Tensor};
use lsgm_core::Result;

use super::{DeviceOp, apply3};
use crate::kernels::device::{Element, Launch, NORM, address, fresh, lanes};
use crate::ops::Activation;

/// Which elements of `[batch, channels, positions]` are normalised together.
#[derive(Debug, Clone, Copy)]
struct Sets {
    batch: usize,
    channels: usize,
    positions: usize,
    /// Groups of channels, or 0 for each channel over the batch.
    groups: usize,
}

impl Sets {
    fn new(x: &Tensor, channels: usize, groups: usize) -> Result<Self> {
        let batch = x.dim(0)?;
        Ok(Self { batch, channels, positions: x.elem_count() / (batch * channels), groups })
    }

    fn count(&self) -> usize {
        if self.groups > 0 { self.batch * self.groups } else { self.channels }
    }

    fn planes(&self) -> usize {
        self.batch * self.channels
    }

    fn lanes(&self) -> usize {
        lanes(self.positions)
    }

    /// Threads that put the planes of one set together.
    fn set_lanes(&self) -> usize {
        lanes(self.channels.checked_div(self.groups).unwrap_or(self.batch))
    }

    fn sizes(&self) -> [usize; 4] {
        [self.batch, self.channels, self.positions, self.groups]
    }

    /// Mean and reciprocal standard deviation of each set, `[sets, 2]`.
    fn moments(&self, x: &Tensor, eps: f64) -> Candle<Tensor> {
        let (device, element, x) = (x.device(), Element::of(x.dtype())?, x.contiguous()?);
        let table = fresh((self.planes(), 2), DType::F64, device)?;
        let stats = fresh((self.count(), 2), DType::F32, device)?;
        let [batch, channels, positions, groups] = self.sizes();
        Launch::new(&NORM, "plane_moments", element)
            .addresses(&[address(&x)?, address(&table)?])
            .sizes([batch, channels, positions, self.lanes()])
            .run(device, self.planes() * self.lanes())?;
        Launch::new(&NORM, "set_moments", element)
            .addresses(&[address(&table)?, address(&stats)?])
            .sizes([batch, channels, positions, groups, self.set_lanes()])
            .numbers([eps])
            .run(device, self.count() * self.set_lanes())?;
        Ok(stats)
    }
}

pub(crate) fn group_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let sets = Sets::new(x, gamma.elem_count(), groups)?;
    apply3(Norm { sets, activation, stats: sets.moments(x, eps)?, of_input: true }, [x, gamma, beta])
}

/// The output, and mean and variance of the batch.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor, Tensor)> {
    let sets = Sets::new(x, gamma.elem_count(), 0)?;
    let stats = sets.moments(x, eps)?;
    let (mean, rstd) = (stats.narrow(1, 0, 1)?.flatten_all()?, stats.narrow(1, 1, 1)?.flatten_all()?);
    let y = apply3(Norm { sets, activation, stats, of_input: true }, [x, gamma, beta])?;
    Ok((y, mean, (rstd.sqr()?.recip()? - eps)?))
}

pub(crate) fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    [mean, variance]: [&Tensor; 2],
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let wide = |t: &Tensor| t.detach().to_dtype(DType::F32);
    let stats = Tensor::stack(&[wide(mean)?, (wide(variance)? + eps)?.sqrt()?.recip()?], D::Minus1)?.contiguous()?;
    let sets = Sets::new(x, gamma.elem_count(), 0)?;
    apply3(Norm { sets, activation, stats, of_input: false }, [x, gamma, beta])
}

struct Norm {
    sets: Sets,
    activation: Activation,
    /// Mean and reciprocal standard deviation of each set.
    stats: Tensor,
    /// Whether these are those of the input.
    of_input: bool,
}

impl Norm {
    fn silu(&self) -> usize {
        usize::from(self.activation == Activation::Silu)
    }

    /// What the moments of each set add to the gradient of the input, from the sums of each plane.
    fn input_means(&self, table: &Tensor, gamma: &Tensor, element: Element) -> Candle<Tensor> {
        let (sets, device) = (&self.sets, gamma.device());
        let [batch, channels, positions, groups] = sets.sizes();
        let means = fresh((sets.count(), 2), DType::F32, device)?;
        Launch::new(&NORM, "set_slopes", element)
            .addresses(&[address(table)?, address(gamma)?, address(&means)?])
            .sizes([batch, channels, positions, groups, sets.set_lanes()])
            .run(device, sets.count() * sets.set_lanes())?;
        Ok(means)
    }

    /// The sizes of the kernels that work on elements, and their number of threads.
    fn whole(&self) -> ([usize; 6], usize) {
        let [batch, channels, positions, groups] = self.sets.sizes();
        let lanes = self.sets.lanes();
        ([batch, channels, positions, groups, lanes, self.silu()], self.sets.planes() * lanes)
    }
}

impl DeviceOp<3> for Norm {
    const NAME: &'static str = "norm";

    fn parameters(&self) -> [bool; 3] {
        [false, true, true]
    }

    fn forward(&self, device: &Device, element: Element, [x, gamma, beta]: [u64; 3], y: u64) -> Candle<()> {
        let (sizes, threads) = self.whole();
        Launch::new(&NORM, "normalise", element)
            .addresses(&[x, gamma, beta, address(&self.stats)?, y])
            .sizes(sizes)
            .run(device, threads)
    }

    fn backward(&self, inputs: [&Tensor; 3], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 3]> {
        let [x, gamma, beta] = inputs;
        let (device, element) = (x.device(), Element::of(x.dtype())?);
        let Sets { batch, channels, .. } = self.sets;
        let (sizes, threads) = self.whole();
        let given = [address(x)?, address(gamma)?, address(beta)?, address(&self.stats)?, address(gradient)?];
        let table = fresh((self.sets.planes(), 2), DType::F64, device)?;
        Launch::new(&NORM, "plane_slopes", element)
            .addresses(&[&given[..], &[address(&table)?]].concat())
            .sizes(sizes)
            .run(device, threads)?;
        let mut found = [None, None, None];
        if gamma.track_op() || beta.track_op() {
            let gradients = [fresh(channels, DType::F32, device)?, fresh(channels, DType::F32, device)?];
            Launch::new(&NORM, "channel_slopes", element)
                .addresses(&[address(&table)?, address(&gradients[0])?, address(&gradients[1])?])
                .sizes([batch, channels, lanes(batch)])
                .run(device, channels * lanes(batch))?;
            let [dgamma, dbeta] = gradients;
            found = [None, gamma.track_op().then_some(dgamma), beta.track_op().then_some(dbeta)];
        }
        if x.track_op() {
            let means = self.of_input.then(|| self.input_means(&table, gamma, element)).transpose()?;
            let dx = fresh(x.shape(), x.dtype(), device)?;
            let written = [means.as_ref().map_or(Ok(0), address)?, address(&dx)?];
            Launch::new(&NORM, "norm_data_gradient", element)
                .addresses(&[&given[..], &written].concat())
                .sizes(sizes)
                .run(device, threads)?;
            found[0] = Some(dx);
        }
        Ok(found)
    }
}
