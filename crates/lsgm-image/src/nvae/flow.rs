//! Volume-preserving autoregressive flows behind a Normal posterior (NVAE, appendix A; Kingma et al. 2016).

use candle_core::Tensor;
use lsgm_core::Result;
use lsgm_nn::{full_precision, lower_precision, ops};

use super::layers::{Conv, Plan, Site};

/// Hidden channels for each latent channel.
const EXPANSION: usize = 6;

/// Two cells of opposite order, one after the other.
pub(super) struct Flow {
    cells: [FlowCell; 2],
}

impl Flow {
    pub(super) fn new(channels: usize, site: &Site<'_>) -> Result<Self> {
        let cells = [
            FlowCell::new(channels, Order::Forward, &site.pp("cell1"))?,
            FlowCell::new(channels, Order::Backward, &site.pp("cell2"))?,
        ];
        Ok(Self { cells })
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        self.cells[1].forward(&self.cells[0].forward(z)?)
    }
}

/// `z − μ(z)`, where `μ` at a place depends on earlier places alone: the determinant of the Jacobian is 1.
struct FlowCell {
    first: Conv,
    depthwise: Conv,
    mean: Conv,
}

impl FlowCell {
    fn new(channels: usize, order: Order, site: &Site<'_>) -> Result<Self> {
        let hidden = channels * EXPANSION;
        let masked = |plan: Plan, own: Own, scale: f64, site: &Site<'_>| {
            plan.build_masked(Some(causal_mask(plan.weight_dims(), channels, own, order)), scale, site)
        };
        let convz = site.pp("conv").pp("convz");
        let first = Plan::new(channels, hidden, 3).without_bias();
        let depthwise = Plan::new(hidden, hidden, 5).groups(hidden).without_bias();
        Ok(Self {
            first: masked(first, Own::Hidden, 1.0, &convz.pp(0))?,
            depthwise: masked(depthwise, Own::Seen, 1.0, &convz.pp(2))?,
            // A small scale keeps the flow near the identity at the start.
            mean: masked(Plan::new(hidden, channels, 1), Own::Seen, 0.1, &site.pp("mu").pp("conv_0"))?,
        })
    }

    fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let h = ops::elu(&self.first.forward(&lower_precision(z)?)?)?;
        let h = ops::elu(&self.depthwise.forward(&h)?)?;
        Ok((z - full_precision(&self.mean.forward(&h)?)?)?)
    }
}

/// Which places come before a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The rows above, and what is to the left.
    Forward,
    /// The rows below, and what is to the right.
    Backward,
}

/// Whether an output sees the latent channel it stands for at its own place; it always sees the channels before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Hidden,
    Seen,
}

/// Ones where an output may look, for a weight `[outputs, inputs/groups, k, k]`. Inputs and outputs stand for the
/// `channels` of the latent in equal blocks.
fn causal_mask([outputs, inputs, k, _]: [usize; 4], channels: usize, own: Own, order: Order) -> Vec<f32> {
    let middle = k / 2;
    let mut mask = Vec::with_capacity(outputs * inputs * k * k);
    for output in 0..outputs {
        for input in 0..inputs {
            for row in 0..k {
                for column in 0..k {
                    let (row, column) = match order {
                        Order::Forward => (row, column),
                        Order::Backward => (k - 1 - row, k - 1 - column),
                    };
                    let seen = if (row, column) == (middle, middle) {
                        let own_channel = output * channels / outputs;
                        // A depthwise weight has one input: the output's own channel.
                        let channel = if inputs == 1 { own_channel } else { input * channels / inputs };
                        channel < own_channel || (own == Own::Seen && channel == own_channel)
                    } else {
                        (row, column) < (middle, middle)
                    };
                    mask.push(f32::from(u8::from(seen)));
                }
            }
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use candle_core::{DType, Device, Var};
    use lsgm_core::{ParamStore, Rng};

    #[test]
    fn masks_follow_the_order_of_places_and_channels() {
        let m = causal_mask([4, 2, 3, 3], 2, Own::Hidden, Order::Forward);
        let centre = |m: &[f32], output: usize, input: usize, inputs: usize| m[(output * inputs + input) * 9 + 4];
        assert_eq!(m[..9], [1., 1., 1., 1., 0., 0., 0., 0., 0.]);
        assert_eq!([centre(&m, 1, 0, 2), centre(&m, 2, 0, 2), centre(&m, 3, 1, 2)], [0., 1., 0.]);
        let m = causal_mask([2, 4, 1, 1], 2, Own::Seen, Order::Forward);
        assert_eq!(m, [1., 1., 0., 0., 1., 1., 1., 1.]);
        let m = causal_mask([4, 1, 3, 3], 2, Own::Seen, Order::Backward);
        assert_eq!(m[..9], [0., 0., 0., 0., 1., 1., 1., 1., 1.]);
    }

    #[test]
    fn the_jacobian_of_a_cell_is_triangular_with_ones_on_its_diagonal() {
        for (channels, backward) in [(1, 0), (2, 0), (3, 1), (1, 1)] {
            let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(4));
            let penalty = RefCell::default();
            let flow = Flow::new(channels, &Site::new(store.root(), &penalty)).unwrap();
            let (height, width) = (3, 4);
            let n = channels * height * width;
            let z = Rng::new(5).normal_tensor((1, channels, height, width), DType::F64, &Device::Cpu).unwrap();
            let z = Var::from_tensor(&z).unwrap();
            let y = flow.cells[backward].forward(&z).unwrap();
            // Position and channel in the order of the flow.
            let rank = |i: usize| {
                let (channel, place) = (i / (height * width), i % (height * width));
                (if backward == 1 { height * width - place } else { place }, channel)
            };
            for i in 0..n {
                let out = y.flatten_all().unwrap().get(i).unwrap();
                let row = out.backward().unwrap().get(&z).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for (j, d) in row.iter().enumerate() {
                    match rank(j).cmp(&rank(i)) {
                        std::cmp::Ordering::Equal => assert!((d - 1.0).abs() < 1e-12, "{channels} {i} {j}: {d}"),
                        std::cmp::Ordering::Greater => assert_eq!(*d, 0.0, "{channels} {i} {j}"),
                        std::cmp::Ordering::Less => {}
                    }
                }
            }
        }
    }
}
