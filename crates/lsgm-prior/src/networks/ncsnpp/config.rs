use lsgm_core::{Error, LatentShape, Result};
use serde::{Deserialize, Serialize};

use super::{Progressive, ProgressiveCombine, ProgressiveInput, TimeFeatures};
use crate::networks::plane::Plane;

/// Config of [`super::Ncsnpp`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NcsnppConfig {
    /// Channels at the first level, at least 4.
    pub channels: usize,
    /// Channels of each level as a multiple of `channels`; one entry per level, each level half the size of the one
    /// before.
    pub channel_multipliers: Vec<usize>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub blocks: usize,
    /// Widths of feature maps that have self-attention. The middle always has it.
    pub attention: Vec<usize>,
    /// Whether feature maps are resampled with the FIR filter [1, 3, 3, 1].
    pub fir: bool,
    /// Whether sums at skip connections are divided by √2.
    pub skip_rescale: bool,
    /// How the output is gathered.
    pub progressive: Progressive,
    /// How the input enters below the first level.
    pub progressive_input: ProgressiveInput,
    /// How `progressive_input = "input-skip"` combines.
    pub progressive_combine: ProgressiveCombine,
    /// Dropout probability.
    pub dropout: f64,
    /// Width of the time features; an even number of at least 4.
    pub embedding: usize,
    /// What they are.
    pub embedding_kind: TimeFeatures,
    /// What `t` is multiplied with before its sinusoidal features, or the width of the distribution of their frequencies.
    pub embedding_scale: f64,
}

/// Published models have attention at this width where a level has it; none is meant where no level has.
const USUAL_ATTENTION: usize = 16;

impl Default for NcsnppConfig {
    fn default() -> Self {
        Self {
            channels: 128,
            channel_multipliers: vec![1, 1],
            blocks: 2,
            attention: vec![USUAL_ATTENTION],
            fir: false,
            skip_rescale: true,
            progressive: Progressive::None,
            progressive_input: ProgressiveInput::None,
            progressive_combine: ProgressiveCombine::Sum,
            dropout: 0.2,
            embedding: 128,
            embedding_kind: TimeFeatures::Positional,
            embedding_scale: 1000.0,
        }
    }
}

impl NcsnppConfig {
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str, shape: &LatentShape) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::config(format!("{key}.{field}"), message));
        let levels = self.channel_multipliers.len();
        if self.channels < 4 {
            return refuse("channels", format!("{} must be at least 4", self.channels));
        }
        if levels == 0 || self.channel_multipliers.contains(&0) {
            return refuse("channel_multipliers", "give one positive multiple per level, such as [1, 1]".into());
        }
        let planes: Vec<Plane> =
            std::iter::successors(Some(Plane::new(shape)), |plane| Some(plane.half())).take(levels).collect();
        if levels > 1 && planes[levels - 2].shortest() < 2 {
            let message = format!("{levels} levels halve the latent {:?} below 1 position: use fewer", shape.spatial);
            return refuse("channel_multipliers", message);
        }
        let widths: Vec<usize> = planes.iter().map(|plane| plane.size.1).collect();
        if let Some(width) = self.attention.iter().find(|w| **w != USUAL_ATTENTION && !widths.contains(w)) {
            return refuse("attention", format!("no level is {width} wide: name widths of levels, {widths:?}"));
        }
        if self.blocks == 0 {
            return refuse("blocks", "at least 1 residual block per level".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", format!("{} must be at least 0 and below 1", self.dropout));
        }
        if self.embedding < 4 || !self.embedding.is_multiple_of(2) {
            return refuse("embedding", format!("{} must be an even number of at least 4", self.embedding));
        }
        if !(self.embedding_scale > 0.0 && self.embedding_scale.is_finite()) {
            return refuse("embedding_scale", "must be above 0; 1000 is usual".into());
        }
        Ok(())
    }
}
