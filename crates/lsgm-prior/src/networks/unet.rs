use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Params, Pass, Result, Spatial};
use lsgm_nn::ops::{Activation, silu};
use lsgm_nn::{Conv2d, GroupNorm, Linear, SelfAttention2d, TimeEmbedding, full_precision, init, lower_precision};
use serde::{Deserialize, Serialize};

use super::ScoreNetwork;
use super::blocks::{BlockConfig, Conditioning, ResidualBlock, group_norm, zero_conv};
use super::plane::Plane;

/// Config of [`Unet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnetConfig {
    /// Channels at the first level; an even number of at least 4.
    pub channels: usize,
    /// Channels of each level as a multiple of `channels`. One level keeps the size of the latent, each further one
    /// halves it (rounded up).
    pub channel_multipliers: Vec<usize>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub blocks: usize,
    /// Levels with self-attention, from 0. The middle has it if any level has.
    pub attention: Vec<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Dropout probability in the residual blocks.
    pub dropout: f64,
    /// Width of the time embedding.
    pub embedding: usize,
    /// What `t` is multiplied with before its sinusoidal features.
    pub embedding_scale: f64,
    /// How residual blocks take the time in.
    pub conditioning: Conditioning,
    /// Rows that the channels of latents `[B, C, L]` are laid out over, neighbours together; they must divide `C`. With
    /// more than 1 the network moves along the channels as it does along the line: for channels that are frequencies.
    pub rows: usize,
}

impl Default for UnetConfig {
    fn default() -> Self {
        Self {
            channels: 64,
            channel_multipliers: vec![1, 2],
            blocks: 1,
            attention: vec![1],
            heads: 4,
            dropout: 0.0,
            embedding: 256,
            embedding_scale: 1000.0,
            conditioning: Conditioning::Additive,
            rows: 1,
        }
    }
}

impl UnetConfig {
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str, shape: &LatentShape) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::config(format!("{key}.{field}"), message));
        let levels = self.channel_multipliers.len();
        if self.channels < 4 || !self.channels.is_multiple_of(2) {
            return refuse("channels", format!("{} must be an even number of at least 4", self.channels));
        }
        if levels == 0 || self.channel_multipliers.contains(&0) {
            return refuse("channel_multipliers", "give one positive multiple per level, such as [1, 2]".into());
        }
        if self.rows == 0 || !shape.channels.is_multiple_of(self.rows) {
            return refuse("rows", format!("{} rows do not divide {} channels", self.rows, shape.channels));
        }
        if self.rows > 1 && matches!(shape.spatial, Spatial::Plane(..)) {
            return refuse("rows", format!("the latent {:?} has rows already: leave it at 1", shape.spatial));
        }
        let smallest = (1..levels).fold(Plane::new(&self.laid_out(shape)), |plane, _| plane.half());
        if levels > 1 && smallest.shortest() < 2 {
            let message = format!("{levels} levels halve the latent {:?} below 2 positions: use fewer", shape.spatial);
            return refuse("channel_multipliers", message);
        }
        if self.blocks == 0 {
            return refuse("blocks", "at least 1 residual block per level".into());
        }
        if let Some(level) = self.attention.iter().find(|level| **level >= levels) {
            return refuse("attention", format!("level {level} does not exist: there are levels 0 to {}", levels - 1));
        }
        // The middle is as wide as the last level.
        let middle = self.attention.first().map(|_| levels - 1);
        for level in self.attention.iter().copied().chain(middle) {
            let width = self.width(level);
            if self.heads == 0 || !width.is_multiple_of(self.heads) {
                return refuse(
                    "heads",
                    format!("{} heads do not divide the {width} channels of level {level}", self.heads),
                );
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", format!("{} must be at least 0 and below 1", self.dropout));
        }
        if self.embedding == 0 {
            return refuse("embedding", "must be positive".into());
        }
        if !(self.embedding_scale > 0.0 && self.embedding_scale.is_finite()) {
            return refuse("embedding_scale", "must be above 0; 1000 is usual".into());
        }
        Ok(())
    }

    /// The shape that the network sees.
    fn laid_out(&self, shape: &LatentShape) -> LatentShape {
        match shape.spatial {
            Spatial::Line(length) if self.rows > 1 => LatentShape::plane(shape.channels / self.rows, self.rows, length),
            _ => *shape,
        }
    }

    fn width(&self, level: usize) -> usize {
        self.channels * self.channel_multipliers.get(level).copied().unwrap_or(1)
    }
}

/// A U-Net score network for latents `[B, C, L]` or `[B, C, H, W]` of any size, odd sizes included (Ho et al. 2020).
#[derive(Debug)]
pub struct Unet {
    plane: Plane,
    /// What is added to each row of channels laid out over rows, `[C, rows, 1]`.
    rows: Option<Tensor>,
    features: TimeEmbedding,
    time1: Linear,
    time2: Linear,
    enter: Conv2d,
    down: Vec<Level>,
    middle: (ResidualBlock, Option<SelfAttention2d>, ResidualBlock),
    up: Vec<Level>,
    norm: GroupNorm,
    leave: Conv2d,
}

/// The blocks at one size, and the convolution that changes to the next one.
#[derive(Debug)]
struct Level {
    plane: Plane,
    blocks: Vec<(ResidualBlock, Option<SelfAttention2d>)>,
    resample: Option<Conv2d>,
}

impl Unet {
    /// Build the network; `config` is taken to be valid.
    pub fn new(config: &UnetConfig, shape: LatentShape, params: &Params) -> Result<Self> {
        let rows = (config.rows > 1).then(|| params.get("rows", (config.channels, config.rows, 1), init::zeros()));
        let shape = config.laid_out(&shape);
        let plane = Plane::new(&shape);
        let build = Builder { config, plane, params };
        let (down, skips) = build.down()?;
        let up = build.up(skips)?;
        let conv = |inputs, outputs, name: &str| {
            Conv2d::new(inputs, outputs, plane.kernel(3), plane.conv(3, 1), true, &params.pp(name))
        };
        Ok(Self {
            plane,
            rows: rows.transpose()?,
            features: TimeEmbedding { scale: config.embedding_scale, ..TimeEmbedding::new(config.channels) },
            time1: Linear::new(config.channels, config.embedding, true, &params.pp("time1"))?,
            time2: Linear::new(config.embedding, config.embedding, true, &params.pp("time2"))?,
            enter: conv(shape.channels, config.channels, "enter")?,
            down,
            middle: build.middle()?,
            up,
            norm: group_norm(config.width(0), Activation::Silu, &params.pp("norm"))?,
            leave: zero_conv(config.width(0), shape.channels, plane, &params.pp("leave"))?,
        })
    }

    /// The time embedding, activated once for all blocks: `[B, E]`, in the type and on the device of `like`.
    fn embed(&self, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        let features = self.features.forward_like(t, like)?;
        silu(&self.time2.forward(&silu(&self.time1.forward(&features)?)?)?)
    }
}

impl ScoreNetwork for Unet {
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let embedding = self.embed(t, z_t)?;
        let Some(rows) = &self.rows else {
            let x = self.enter.forward(&self.plane.enter(&lower_precision(z_t)?)?)?;
            return self.plane.leave(&self.score(x, &embedding, pass)?);
        };
        // Channels `row · k + i` to channel `i` of the row, and back.
        let (height, length) = self.plane.size;
        let laid_out = z_t.reshape(((), height, z_t.dim(1)? / height, length))?.transpose(1, 2)?.contiguous()?;
        let x = lower_precision(&self.enter.forward(&laid_out)?.broadcast_add(rows)?)?;
        Ok(self.score(x, &embedding, pass)?.transpose(1, 2)?.reshape(z_t.shape())?)
    }
}

impl Unet {
    /// From the first convolution's output to the last one's, in full precision.
    fn score(&self, mut x: Tensor, embedding: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let mut skips = vec![x.clone()];
        for level in &self.down {
            for block in &level.blocks {
                x = apply(block, &x, embedding, pass)?;
                skips.push(x.clone());
            }
            if let Some(conv) = &level.resample {
                x = conv.forward(&x)?;
                skips.push(x.clone());
            }
        }
        let (first, attention, second) = &self.middle;
        x = first.forward(&x, embedding, pass)?;
        if let Some(attention) = attention {
            x = attention.forward(&x)?;
        }
        x = second.forward(&x, embedding, pass)?;
        for level in &self.up {
            if let Some(conv) = &level.resample {
                x = conv.forward(&level.plane.double(&x)?)?;
            }
            for block in &level.blocks {
                let skip = skips.pop().ok_or_else(|| Error::contract("unet", "more blocks up than skips"))?;
                x = apply(block, &Tensor::cat(&[&x, &skip], 1)?, embedding, pass)?;
            }
        }
        full_precision(&self.leave.forward(&self.norm.forward(&x)?)?)
    }
}

fn apply(
    (block, attention): &(ResidualBlock, Option<SelfAttention2d>),
    x: &Tensor,
    embedding: &Tensor,
    pass: &mut Pass<'_>,
) -> Result<Tensor> {
    let x = block.forward(x, embedding, pass)?;
    attention.as_ref().map_or(Ok(x.clone()), |attention| attention.forward(&x))
}

struct Builder<'a> {
    config: &'a UnetConfig,
    plane: Plane,
    params: &'a Params,
}

impl Builder<'_> {
    fn levels(&self) -> usize {
        self.config.channel_multipliers.len()
    }

    fn plane_at(&self, level: usize) -> Plane {
        (0..level).fold(self.plane, |plane, _| plane.half())
    }

    fn block(&self, inputs: usize, outputs: usize, params: &Params) -> Result<ResidualBlock> {
        let config = BlockConfig {
            plane: self.plane,
            embedding: self.config.embedding,
            dropout: self.config.dropout,
            conditioning: self.config.conditioning,
        };
        ResidualBlock::new(inputs, outputs, &config, params)
    }

    fn attention(&self, level: usize, params: &Params) -> Result<Option<SelfAttention2d>> {
        let wanted = self.config.attention.contains(&level);
        let build = || SelfAttention2d::new(self.config.width(level), self.config.heads, &params.pp("attention"));
        wanted.then(build).transpose()
    }

    /// The way down, and the channels of every feature map that is skipped across.
    fn down(&self) -> Result<(Vec<Level>, Vec<usize>)> {
        let mut channels = self.config.channels;
        let (mut levels, mut skips) = (Vec::new(), vec![channels]);
        for level in 0..self.levels() {
            let params = self.params.pp("down").pp(level);
            let width = self.config.width(level);
            let mut blocks = Vec::new();
            for i in 0..self.config.blocks {
                let params = params.pp(i);
                blocks.push((self.block(channels, width, &params)?, self.attention(level, &params)?));
                channels = width;
                skips.push(width);
            }
            let mut resample = None;
            if level + 1 < self.levels() {
                let (kernel, conv) = (self.plane.kernel(3), self.plane.conv(3, 2));
                resample = Some(Conv2d::new(width, width, kernel, conv, true, &params.pp("resample"))?);
                skips.push(width);
            }
            levels.push(Level { plane: self.plane_at(level), blocks, resample });
        }
        Ok((levels, skips))
    }

    fn middle(&self) -> Result<(ResidualBlock, Option<SelfAttention2d>, ResidualBlock)> {
        let params = self.params.pp("middle");
        let width = self.config.width(self.levels() - 1);
        let attention = (!self.config.attention.is_empty())
            .then(|| SelfAttention2d::new(width, self.config.heads, &params.pp("attention")))
            .transpose()?;
        Ok((self.block(width, width, &params.pp(0))?, attention, self.block(width, width, &params.pp(1))?))
    }

    fn up(&self, mut skips: Vec<usize>) -> Result<Vec<Level>> {
        let mut channels = self.config.width(self.levels() - 1);
        let mut levels = Vec::new();
        for level in (0..self.levels()).rev() {
            let params = self.params.pp("up").pp(level);
            let width = self.config.width(level);
            let mut resample = None;
            if level + 1 < self.levels() {
                let (kernel, conv) = (self.plane.kernel(3), self.plane.conv(3, 1));
                resample = Some(Conv2d::new(channels, width, kernel, conv, true, &params.pp("resample"))?);
                channels = width;
            }
            let mut blocks = Vec::new();
            for i in 0..=self.config.blocks {
                let params = params.pp(i);
                let inputs = channels + skips.pop().unwrap_or(0);
                blocks.push((self.block(inputs, width, &params)?, self.attention(level, &params)?));
                channels = width;
            }
            levels.push(Level { plane: self.plane_at(level), blocks, resample });
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lsgm_core::{ParamStore, Rng};

    /// What moves by a row in the channels moves by a row in the score.
    #[test]
    fn a_network_over_rows_moves_along_the_channels() {
        let config =
            UnetConfig { channels: 4, channel_multipliers: vec![1], attention: vec![], rows: 40, ..Default::default() };
        let shape = LatentShape::line(80, 2);
        config.validate("prior.network", &shape).unwrap();
        let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(0));
        let network = Unet::new(&config, shape, &store.root()).unwrap();
        let mut rng = Rng::new(1);
        for (name, var) in store.vars() {
            if name != "rows" {
                let noise = rng.normal_tensor(var.shape().clone(), DType::F64, &Device::Cpu).unwrap();
                var.set(&(var.as_tensor() + (noise * 0.1).unwrap()).unwrap()).unwrap();
            }
        }
        // Two rows of two channels each in the middle, the second time one row further.
        let middle = rng.normal_tensor((1, 4, 2), DType::F64, &Device::Cpu).unwrap();
        let mut score = |first: usize| {
            let z = middle.pad_with_zeros(1, first, 76 - first).unwrap();
            let t = Tensor::new(&[0.4], &Device::Cpu).unwrap();
            network.forward(&z, &t, &mut Pass::eval(&mut rng)).unwrap()
        };
        let (here, further) = (score(36), score(38));
        assert_eq!(here.dims(), [1, 80, 2]);
        let part =
            |x: &Tensor, first: usize| x.narrow(1, first, 24).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (a, b) = (part(&here, 28), part(&further, 30));
        assert!(a.iter().any(|v| v.abs() > 1e-3));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9));
        assert!(part(&here, 30).iter().zip(&b).any(|(a, b)| (a - b).abs() > 1e-3));
    }

    #[test]
    fn rows_must_divide_the_channels_of_a_line() {
        let refused = |rows: usize, shape: LatentShape| {
            UnetConfig { rows, ..Default::default() }.validate("prior.network", &shape).unwrap_err().to_string()
        };
        for message in [
            refused(0, LatentShape::line(8, 8)),
            refused(3, LatentShape::line(8, 8)),
            refused(2, LatentShape::plane(8, 8, 8)),
        ] {
            assert!(message.contains("prior.network.rows"), "{message}");
        }
    }
}
