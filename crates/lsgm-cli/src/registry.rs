//! The kinds of data that a binary knows.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Measure, Modality, Params, Split, Template, Yardstick,
};
use toml::Table;

use crate::Result;
use crate::config::{Tree, section};

/// The modalities that a binary offers under `modality = "..."` in its configs.
///
/// The default registry holds the built-in modalities; [`Registry::with`] adds one, or replaces one of the same name.
///
/// ```
/// use lsgm_audio::Audio;
/// use lsgm_binary::Binary;
/// use lsgm_cli::Registry;
/// use lsgm_image::Image;
/// use lsgm_text::Text;
///
/// // What `Registry::default()` does:
/// let registry = Registry::empty().with::<Audio>().with::<Binary>().with::<Image>().with::<Text>();
/// assert_eq!(registry.names().collect::<Vec<_>>(), Registry::default().names().collect::<Vec<_>>());
/// ```
pub struct Registry {
    kinds: BTreeMap<&'static str, Box<dyn Kind>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::empty()
            .with::<lsgm_audio::Audio>()
            .with::<lsgm_binary::Binary>()
            .with::<lsgm_image::Image>()
            .with::<lsgm_text::Text>()
    }
}

impl Registry {
    /// A registry without any modality.
    pub fn empty() -> Self {
        Self { kinds: BTreeMap::new() }
    }

    /// This registry and `M`.
    #[must_use]
    pub fn with<M: Modality>(mut self) -> Self {
        self.kinds.insert(M::NAME, Box::new(KindOf::<M>(PhantomData)));
        self
    }

    /// The names of the modalities, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.kinds.keys().copied()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&dyn Kind> {
        self.kinds.get(name).map(Box::as_ref)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A [`Modality`] type whose name alone is known.
pub(crate) trait Kind: Send + Sync {
    /// The sections `[data]` and `[autoencoder]` of a config, checked for keys and types.
    fn read(&self, tree: &Tree) -> Result<Box<dyn Sections>>;
}

/// The two sections of a modality.
pub(crate) trait Sections: Send + Sync {
    /// Both sections complete, as `data` and `autoencoder`.
    fn to_toml(&self) -> Result<Table>;

    /// [`Modality::prepare`].
    fn prepare(&self, dir: Option<&Path>) -> Result<Assets>;

    /// [`Modality::new`].
    fn open(&self, assets: &Assets) -> Result<Arc<dyn AnyModality>>;
}

/// A [`Modality`] behind a pointer; each method is the one of the same name.
pub(crate) trait AnyModality: Send + Sync {
    fn dataset(&self, split: Split, dir: Option<&Path>) -> lsgm_core::Result<Box<dyn Dataset>>;
    fn build(&self, params: &Params) -> lsgm_core::Result<Box<dyn Autoencoder>>;
    fn data_dim(&self) -> usize;
    fn seconds(&self) -> Option<f64>;
    fn render(&self, items: &Tensor, arrangement: Arrangement) -> lsgm_core::Result<Vec<Artifact>>;
    fn render_as(&self, extension: &str, items: &Tensor, arrangement: Arrangement) -> lsgm_core::Result<Vec<Artifact>>;
    fn read_items(&self, entries: &[String]) -> lsgm_core::Result<Tensor>;
    fn read_template(&self, template: &str) -> lsgm_core::Result<Template>;
    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> lsgm_core::Result<Vec<Measure>>;
    fn measure_reconstructions(
        &self,
        originals: &Tensor,
        reconstructions: &Tensor,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>>;
    fn measure_nelbo(
        &self,
        nelbo: f64,
        stderr: f64,
        items: usize,
        split: Split,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>>;
    fn measure_baselines(
        &self,
        items: usize,
        split: Split,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>>;
}

struct KindOf<M>(PhantomData<fn() -> M>);

impl<M: Modality> Kind for KindOf<M> {
    fn read(&self, tree: &Tree) -> Result<Box<dyn Sections>> {
        let data = section::read::<M::Data>(tree, "data")?;
        let model = section::read::<M::Model>(tree, "autoencoder")?;
        Ok(Box::new(SectionsOf::<M> { data, model }))
    }
}

struct SectionsOf<M: Modality> {
    data: M::Data,
    model: M::Model,
}

impl<M: Modality> Sections for SectionsOf<M> {
    fn to_toml(&self) -> Result<Table> {
        let mut table = Table::new();
        table.insert("data".to_owned(), section::write("data", &self.data)?);
        table.insert("autoencoder".to_owned(), section::write("autoencoder", &self.model)?);
        Ok(table)
    }

    fn prepare(&self, dir: Option<&Path>) -> Result<Assets> {
        Ok(M::prepare(&self.data, dir)?)
    }

    fn open(&self, assets: &Assets) -> Result<Arc<dyn AnyModality>> {
        Ok(Arc::new(M::new(&self.data, &self.model, assets)?))
    }
}

impl<M: Modality> AnyModality for M {
    fn dataset(&self, split: Split, dir: Option<&Path>) -> lsgm_core::Result<Box<dyn Dataset>> {
        Modality::dataset(self, split, dir)
    }

    fn build(&self, params: &Params) -> lsgm_core::Result<Box<dyn Autoencoder>> {
        Modality::build(self, params)
    }

    fn data_dim(&self) -> usize {
        Modality::data_dim(self)
    }

    fn seconds(&self) -> Option<f64> {
        Modality::seconds(self)
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> lsgm_core::Result<Vec<Artifact>> {
        Modality::render(self, items, arrangement)
    }

    fn render_as(&self, extension: &str, items: &Tensor, arrangement: Arrangement) -> lsgm_core::Result<Vec<Artifact>> {
        Modality::render_as(self, extension, items, arrangement)
    }

    fn read_items(&self, entries: &[String]) -> lsgm_core::Result<Tensor> {
        Modality::read_items(self, entries)
    }

    fn read_template(&self, template: &str) -> lsgm_core::Result<Template> {
        Modality::read_template(self, template)
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> lsgm_core::Result<Vec<Measure>> {
        Modality::measure_samples(self, samples, yardstick)
    }

    fn measure_reconstructions(
        &self,
        originals: &Tensor,
        reconstructions: &Tensor,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>> {
        Modality::measure_reconstructions(self, originals, reconstructions, yardstick)
    }

    fn measure_nelbo(
        &self,
        nelbo: f64,
        stderr: f64,
        items: usize,
        split: Split,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>> {
        Modality::measure_nelbo(self, nelbo, stderr, items, split, yardstick)
    }

    fn measure_baselines(
        &self,
        items: usize,
        split: Split,
        yardstick: &mut Yardstick<'_>,
    ) -> lsgm_core::Result<Vec<Measure>> {
        Modality::measure_baselines(self, items, split, yardstick)
    }
}
