use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Autoencoder, Dataset, Error, Measure, Params, Result, Split, Yardstick};

/// Files that belong to a modality and travel with a run, such as a tokenizer: name to content.
pub type Assets = BTreeMap<String, Vec<u8>>;

/// What a set of items is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Items side by side.
    Samples,
    /// Items alternate between an original and its reconstruction.
    Pairs,
    /// Rows of this many items, each row a path from one item to another.
    Paths(usize),
}

impl Arrangement {
    /// Columns of a sheet of `n` items: about as many as rows, or the steps of a path.
    pub fn columns(self, n: usize) -> usize {
        let columns = match self {
            Self::Samples => (n as f64).sqrt().ceil() as usize,
            Self::Pairs => ((n / 2) as f64).sqrt().ceil() as usize,
            Self::Paths(steps) => steps,
        };
        columns.max(1)
    }

    /// Row and column of item `i` on a sheet of so many columns. Pairs lie in two rows: the original above its
    /// reconstruction.
    ///
    /// ```
    /// use lsgm_core::Arrangement;
    /// assert_eq!(Arrangement::Samples.place(4, 3), (1, 1));
    /// assert_eq!(Arrangement::Pairs.place(3, 3), (1, 1));
    /// ```
    pub fn place(self, i: usize, columns: usize) -> (usize, usize) {
        match self {
            Self::Pairs => (2 * (i / 2 / columns) + i % 2, i / 2 % columns),
            Self::Samples | Self::Paths(_) => (i / columns, i % columns),
        }
    }
}

/// A rendered file: the bytes, and what to append to the stem of the file's name when several are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Appended to the stem; empty for the main file.
    pub suffix: String,
    /// Extension without the dot.
    pub extension: &'static str,
    /// Content.
    pub bytes: Vec<u8>,
}

/// An item of which a part is known.
#[derive(Debug, Clone)]
pub struct Template {
    /// The item `[1, ...]` in the layout of [`crate::Batch::x`], with anything in the unknown places.
    pub x: Tensor,
    /// 1 where `x` is known and 0 elsewhere (`u32`), in the layout of `x`.
    pub known: Tensor,
}

/// A kind of data: how its items are read, modelled and shown.
///
/// A modality is built from its two config sections alone, so that a run directory is enough to sample; data are
/// read when [`Modality::dataset`] asks for them.
///
/// ```
/// use std::path::Path;
///
/// use candle_core::{DType, Device, Tensor};
/// use lsgm_core::{
///     Arrangement, Artifact, Assets, Autoencoder, Batch, Dataset, Error, Modality, ParamStore, Params, Result, Rng, Split,
/// };
/// use serde::{Deserialize, Serialize};
/// # use lsgm_core::{Decoder, Encoder, Init, LatentShape, Latents, Likelihood, Pass, Posterior};
/// # struct UnitNormal(Tensor);
/// # impl Likelihood for UnitNormal {
/// #     fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
/// #         Ok(((x - &self.0)?.sqr()?.sum(1)? * -0.5)?)
/// #     }
/// #     fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// #     fn mean(&self) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// # }
/// # struct Scale(Tensor);
/// # impl Encoder for Scale {
/// #     fn latent_shape(&self) -> LatentShape {
/// #         LatentShape::line(2, 1)
/// #     }
/// #     fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
/// #         let mu = x.broadcast_mul(&self.0)?.unsqueeze(2)?;
/// #         Posterior::normal(mu.clone(), mu.zeros_like()?, pass.rng)
/// #     }
/// # }
/// # impl Decoder for Scale {
/// #     fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
/// #         Ok(Box::new(UnitNormal(z.prior.squeeze(2)?.broadcast_div(&self.0)?)))
/// #     }
/// # }
/// # impl Autoencoder for Scale {}
/// # impl Scale {
/// #     fn new(params: &Params) -> Result<Self> {
/// #         Ok(Self(params.pp("encoder").get("scale", (1, 2), Init::Const(2.0))?))
/// #     }
/// # }
///
/// /// `[data]`: points of the plane.
/// #[derive(Clone, Serialize, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct PointsConfig {
///     /// Points of the training split.
///     items: usize,
/// }
///
/// impl Default for PointsConfig {
///     fn default() -> Self {
///         Self { items: 1000 }
///     }
/// }
///
/// /// `[autoencoder]`: without keys.
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct ScaleConfig {}
///
/// struct Points(PointsConfig);
///
/// impl Modality for Points {
///     const NAME: &'static str = "points";
///     type Data = PointsConfig;
///     type Model = ScaleConfig;
///
///     fn new(data: &PointsConfig, _: &ScaleConfig, _: &Assets) -> Result<Self> {
///         match data.items {
///             0 => Err(Error::config("data.items", "give at least 1")),
///             _ => Ok(Self(data.clone())),
///         }
///     }
///
///     fn dataset(&self, split: Split, _: Option<&Path>) -> Result<Box<dyn Dataset>> {
///         Ok(Box::new(Drawn { items: self.0.items, rng: Rng::new(0).fork(split.name()) }))
///     }
///
///     fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
///         // An `Encoder` and a `Decoder`; see the examples of these.
///         Ok(Box::new(Scale::new(params)?))
///     }
///
///     fn data_dim(&self) -> usize {
///         2
///     }
///
///     fn render(&self, items: &Tensor, _: Arrangement) -> Result<Vec<Artifact>> {
///         let lines: Vec<String> = items.to_vec2::<f32>()?.iter().map(|p| format!("{} {}", p[0], p[1])).collect();
///         Ok(vec![Artifact { suffix: String::new(), extension: "txt", bytes: lines.join("\n").into_bytes() }])
///     }
/// }
///
/// /// Points that are drawn when they are asked for, each from a generator of its own.
/// struct Drawn {
///     items: usize,
///     rng: Rng,
/// }
///
/// impl Dataset for Drawn {
///     fn len(&self) -> usize {
///         self.items
///     }
///
///     fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
///         let points: Vec<Vec<f32>> = indices.iter().map(|i| self.rng.fork(&i.to_string()).normals(2)).collect();
///         Ok(Batch { x: Tensor::new(points, &Device::Cpu)?, labels: None })
///     }
/// }
///
/// let points = Points::new(&PointsConfig::default(), &ScaleConfig {}, &Assets::new())?;
/// let batch = points.dataset(Split::Train, None)?.batch(&[0, 1, 2], &mut Rng::new(0))?;
/// assert_eq!(batch.x.dims(), [3, 2]);
/// let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
/// assert_eq!(points.build(&store.root())?.latent_shape().dim(), 2);
/// assert_eq!(points.render(&batch.x, Arrangement::Samples)?[0].extension, "txt");
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a modality",
    note = "implement `lsgm_core::Modality`: two config types, an autoencoder, a data set, and how items are rendered"
)]
pub trait Modality: Send + Sync + Sized + 'static {
    /// The name in `modality = "..."` at the top of a config.
    const NAME: &'static str;

    /// Section `[data]`. Use `#[serde(default, deny_unknown_fields)]`.
    type Data: Serialize + DeserializeOwned + Default + Clone + Send + Sync;

    /// Section `[autoencoder]`. Use `#[serde(default, deny_unknown_fields)]`.
    type Model: Serialize + DeserializeOwned + Default + Clone + Send + Sync;

    /// Files to make from the data before training, such as a tokenizer fitted to the corpus. `dir` is the user's
    /// `--data`.
    fn prepare(_data: &Self::Data, _dir: Option<&Path>) -> Result<Assets> {
        Ok(Assets::new())
    }

    /// Check both sections, against each other too, and keep what is needed. Allocates no parameter and reads no
    /// data.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the full key.
    fn new(data: &Self::Data, model: &Self::Model, assets: &Assets) -> Result<Self>;

    /// Open a split. `dir` is the user's `--data`, which goes before what the config names.
    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>>;

    /// Build encoder and decoder with parameters from `params`. Parameters of the encoder lie below `encoder.`, those
    /// of the decoder below `decoder.`; a shared part may lie below either.
    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>>;

    /// Number of data dimensions of an item, for bits per dimension.
    fn data_dim(&self) -> usize;

    /// Playing time of an item in seconds, where items are played: real-time factors are reported then.
    fn seconds(&self) -> Option<f64> {
        None
    }

    /// Turn items (in the layout of [`crate::Batch::x`], or of [`crate::Likelihood::mean`]) to files a person can look
    /// at.
    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>>;

    /// The same for a file with this extension, where the modality knows several formats. By default there is one.
    fn render_as(&self, _extension: &str, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        self.render(items, arrangement)
    }

    /// An item with unknown places that a user gives on the command line.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Input`]. Without an implementation, that templates cannot be given.
    fn read_template(&self, _template: &str) -> Result<Template> {
        Err(Error::config("modality", format!("`{}` has no templates: items are whole or not at all", Self::NAME)))
    }

    /// Items that a user gives on the command line, one for each entry: a line of text, or the path of a file,
    /// whichever the modality understands. In the layout of [`crate::Batch::x`].
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Input`] with the entry. Without an implementation, that items cannot be given.
    fn read_items(&self, _entries: &[String]) -> Result<Tensor> {
        Err(Error::config("modality", format!("items of `{}` cannot be given on the command line", Self::NAME)))
    }

    /// Measures of a model's samples (in the layout of [`crate::Batch::x`]), against the data where that makes sense.
    fn measure_samples(&self, _samples: &Tensor, _yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        Ok(Vec::new())
    }

    /// Measures of reconstructions, item by item beside the originals (both in the layout of [`crate::Batch::x`]).
    fn measure_reconstructions(
        &self,
        _originals: &Tensor,
        _reconstructions: &Tensor,
        _yardstick: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        Ok(Vec::new())
    }

    /// A negative log-likelihood bound of the first `items` items of a split, `nelbo` nats an item with standard error
    /// `stderr`, in units of the modality's own, such as bits per character.
    fn measure_nelbo(
        &self,
        _nelbo: f64,
        _stderr: f64,
        _items: usize,
        _split: Split,
        _yardstick: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        Ok(Vec::new())
    }

    /// What simple models of the data reach on the first `items` items of a split, to hold a bound against.
    fn measure_baselines(&self, _items: usize, _split: Split, _yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        Ok(Vec::new())
    }
}
