//! Residual cells (NVAE, section 3.1).

use std::rc::Rc;

use candle_core::Tensor;
use lsgm_core::Result;
use lsgm_nn::ops::{self, Activation, Conv2dConfig};
use lsgm_nn::{BatchNorm, Linear, checkpoint};

use super::layers::{Conv, Plan, Site};
use crate::config::CellKind;

/// What a residual branch is multiplied with.
const BRANCH_SCALE: f64 = 0.1;

/// What a cell does to the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    Halve,
    Double,
}

/// What the branch of a cell is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    /// Two times batch norm, Swish, convolution.
    BnSwish,
    /// The same as one block, with weight normalisation in its second half alone.
    BnSwish2,
    /// Depthwise separable, its channels expanded by this factor.
    MbConv(usize),
}

impl CellKind {
    /// The branch of cells in the encoder, in front of the latents too.
    pub(super) fn encoder(self) -> Branch {
        if self == Self::ResBnswish2 { Branch::BnSwish2 } else { Branch::BnSwish }
    }

    /// The branch of cells in the decoder between latents.
    pub(super) fn decoder(self) -> Branch {
        if self == Self::ResMbconv { Branch::MbConv(6) } else { self.encoder() }
    }

    /// The branch of cells behind the last latents.
    pub(super) fn postprocess(self) -> Branch {
        if self == Self::ResMbconv { Branch::MbConv(3) } else { self.encoder() }
    }
}

/// What the branch of a cell is, and whether squeeze-and-excitation follows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) branch: Branch,
    pub(super) squeeze_excite: bool,
}

/// `skip(x) + 0.1 · squeeze_excite(branch(x))`.
pub(super) struct Cell(Rc<Parts>);

struct Parts {
    skip: Skip,
    branch: Vec<Box<dyn Block>>,
    gate: Option<Gate>,
}

impl Cell {
    pub(super) fn new(inputs: usize, outputs: usize, step: Step, style: Style, site: &Site<'_>) -> Result<Self> {
        let at = |i: usize| site.pp("_ops").pp(i);
        let branch: Vec<Box<dyn Block>> = match style.branch {
            Branch::BnSwish => vec![
                Box::new(BnSwishConv::new(inputs, outputs, step, &at(0))?),
                Box::new(BnSwishConv::new(outputs, outputs, Step::Keep, &at(1))?),
            ],
            Branch::BnSwish2 => vec![Box::new(BnSwishConv2::new(inputs, outputs, step, &at(0))?)],
            Branch::MbConv(expansion) => vec![Box::new(MbConv::new(inputs, outputs, step, expansion, &at(0))?)],
        };
        Ok(Self(Rc::new(Parts {
            skip: Skip::new(inputs, outputs, step, &site.pp("skip"))?,
            branch,
            gate: style.squeeze_excite.then(|| Gate::new(outputs, &site.pp("se").pp("se"))).transpose()?,
        })))
    }

    /// A segment of its own in a checkpointed pass: its hidden layers are up to six times as wide as its ends.
    pub(super) fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let parts = Rc::clone(&self.0);
        checkpoint(&[x], move |x| parts.forward(&x[0], training))
    }
}

impl Parts {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let mut h = x.clone();
        for block in &self.branch {
            h = block.forward(&h, training)?;
        }
        let skip = self.skip.forward(x)?;
        match &self.gate {
            None => Ok((skip + (h * BRANCH_SCALE)?)?),
            Some(gate) => ops::gated_residual(&skip, &h, &gate.forward(&h)?, BRANCH_SCALE),
        }
    }
}

/// A part of a branch.
pub(super) trait Block {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor>;
}

/// The stride of a convolution in a cell of this step.
fn stride(step: Step) -> usize {
    if step == Step::Halve { 2 } else { 1 }
}

fn doubled(x: Tensor, step: Step) -> Result<Tensor> {
    if step == Step::Double { ops::upsample_nearest2d(&x, 2) } else { Ok(x) }
}

/// Batch norm, Swish, 3×3 convolution.
pub(super) struct BnSwishConv {
    norm: BatchNorm,
    conv: Conv,
    step: Step,
}

impl BnSwishConv {
    pub(super) fn new(inputs: usize, outputs: usize, step: Step, site: &Site<'_>) -> Result<Self> {
        Ok(Self {
            norm: site.pp("bn_act").batch_norm(inputs, Activation::Silu)?,
            conv: Plan::new(inputs, outputs, 3).stride(stride(step)).build(&site.pp("conv_0"))?,
            step,
        })
    }
}

impl Block for BnSwishConv {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        self.conv.forward(&doubled(self.norm.forward(x, training)?, self.step)?)
    }
}

/// Two of them with one weight normalisation.
struct BnSwishConv2 {
    norms: [BatchNorm; 2],
    convs: [Conv; 2],
    step: Step,
}

impl BnSwishConv2 {
    fn new(inputs: usize, outputs: usize, step: Step, site: &Site<'_>) -> Result<Self> {
        let plain = Plan::new(inputs, outputs, 3).stride(stride(step)).without_bias().without_weight_norm();
        Ok(Self {
            norms: [
                site.pp("bn_act_0").batch_norm(inputs, Activation::Silu)?,
                site.pp("bn_act_1").batch_norm(outputs, Activation::Silu)?,
            ],
            convs: [plain.build(&site.pp("conv_0"))?, Plan::new(outputs, outputs, 3).build(&site.pp("conv_1"))?],
            step,
        })
    }
}

impl Block for BnSwishConv2 {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let h = doubled(self.norms[0].forward(x, training)?, self.step)?;
        let h = self.convs[0].forward(&h)?;
        self.convs[1].forward(&self.norms[1].forward(&h, training)?)
    }
}

/// 1×1 expansion, depthwise 5×5, 1×1 (Sandler et al. 2018), with batch norms around.
struct MbConv {
    first_norm: BatchNorm,
    expand: (Conv, BatchNorm),
    depthwise: (Conv, BatchNorm),
    project: (Conv, BatchNorm),
    step: Step,
}

impl MbConv {
    fn new(inputs: usize, outputs: usize, step: Step, expansion: usize, site: &Site<'_>) -> Result<Self> {
        let hidden = inputs * expansion;
        // In the published layout an up-sampling takes the first place.
        let at = |i: usize| site.pp("conv").pp(i + usize::from(step == Step::Double));
        let plan = |inputs, outputs, kernel| Plan::new(inputs, outputs, kernel).without_bias().without_weight_norm();
        let swish = |site: Site<'_>, plan: Plan| -> Result<(Conv, BatchNorm)> {
            let site = site.pp("conv");
            Ok((plan.build(&site.pp(0))?, site.pp(1).batch_norm(hidden, Activation::Silu)?))
        };
        Ok(Self {
            first_norm: at(0).batch_norm(inputs, Activation::Identity)?,
            expand: swish(at(1), plan(inputs, hidden, 1))?,
            depthwise: swish(at(2), plan(hidden, hidden, 5).groups(hidden).stride(stride(step)))?,
            project: (plan(hidden, outputs, 1).build(&at(3))?, at(4).batch_norm(outputs, Activation::Identity)?),
            step,
        })
    }
}

impl Block for MbConv {
    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let run = |(conv, norm): &(Conv, BatchNorm), x: &Tensor| norm.forward(&conv.forward(x)?, training);
        let h = run(&self.expand, &self.first_norm.forward(x, training)?)?;
        // The layers so far look at one position at a time: what they make of equal neighbours is equal, so that the
        // copies can wait until here.
        let h = run(&self.depthwise, &doubled(h, self.step)?)?;
        run(&self.project, &h)
    }
}

/// The way around the branch.
enum Skip {
    Identity,
    /// Swish, then each of the four phases of 2×2 squares to a quarter of the channels.
    Halve(Vec<Conv>),
    /// 1×1 convolution, then bilinear up-sampling.
    Double(Conv),
}

/// The position in its 2×2 square that each part of [`Skip::Halve`] sees.
const PHASES: [(usize, usize); 4] = [(0, 0), (1, 1), (0, 1), (1, 0)];

impl Skip {
    fn new(inputs: usize, outputs: usize, step: Step, site: &Site<'_>) -> Result<Self> {
        Ok(match step {
            Step::Keep => Self::Identity,
            Step::Halve => {
                let quarter = outputs / 4;
                let part = |i: usize| {
                    let outputs = if i == 4 { outputs - 3 * quarter } else { quarter };
                    Plan::new(inputs, outputs, 1).build(&site.pp(format!("conv_{i}")))
                };
                Self::Halve((1..=4).map(part).collect::<Result<_>>()?)
            }
            Step::Double => Self::Double(Plan::new(inputs, outputs, 1).without_bias().build(&site.pp(1))?),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Halve(parts) => halve(&ops::silu(x)?, parts),
            // A 1×1 convolution without bias and an interpolation can change places; this way round it is a quarter of
            // the work.
            Self::Double(conv) => ops::upsample_bilinear2d(&conv.forward(x)?, 2),
        }
    }
}

/// Four 1×1 convolutions, each of one phase of the 2×2 squares, as one convolution with a 2×2 kernel at stride 2.
fn halve(x: &Tensor, parts: &[Conv]) -> Result<Tensor> {
    let mut kernels = Vec::with_capacity(parts.len());
    let mut biases = Vec::with_capacity(parts.len());
    for (part, (row, column)) in parts.iter().zip(PHASES) {
        let kernel = part.kernel()?.pad_with_zeros(2, row, 1 - row)?.pad_with_zeros(3, column, 1 - column)?;
        kernels.push(kernel);
        biases.extend(part.bias());
    }
    let config = Conv2dConfig::default().with_stride((2, 2));
    ops::conv2d(x, &Tensor::cat(&kernels, 0)?, Some(&Tensor::cat(&biases, 0)?), &config)
}

/// The gates of squeeze-and-excitation (Hu et al. 2018), before the sigmoid.
///
/// Parameters: `0.*` and `2.*`, two linear layers with a rectifier between them.
struct Gate {
    reduce: Linear,
    expand: Linear,
}

impl Gate {
    fn new(channels: usize, site: &Site<'_>) -> Result<Self> {
        let hidden = (channels / 16).max(4);
        Ok(Self {
            reduce: Linear::new(channels, hidden, true, &site.params.pp(0))?,
            expand: Linear::new(hidden, channels, true, &site.params.pp(2))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.expand.forward(&ops::relu(&self.reduce.forward(&ops::global_avg_pool(x)?)?)?)
    }
}
