//! What a modality measures beside the bounds: its samples, its reconstructions, simple models of the same data.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use lsgm_core::{Measure, Pass, Rng, Split, Yardstick};
use lsgm_engine::Evaluation;

use crate::Result;
use crate::progress::Progress;
use crate::report::Measures;
use crate::run::Run;

/// Measure a model on a split whose bounds are known.
pub(super) fn gather(run: &Run, split: Split, dir: Option<&Path>, evaluation: &Evaluation) -> Result<Measures> {
    let mut stick = Stick::new(run, dir)?;
    let (nelbo, items) = (&evaluation.nelbo, evaluation.n);
    let modality = &run.modality;
    let bound = stick.hold("bound", |y| modality.measure_nelbo(nelbo.mean, nelbo.stderr, items, split, y))?;
    let baselines = stick.hold("baselines", |y| modality.measure_baselines(items, split, y))?;
    let reconstructions = reconstructions(run, split, dir, &mut stick)?;
    let (samples, sampling) = match run.config.evaluate.samples {
        0 => (Vec::new(), None),
        count => samples(run, count, &mut stick)?,
    };
    Ok(Measures { bound, baselines, reconstructions, samples, sampling })
}

fn reconstructions(run: &Run, split: Split, dir: Option<&Path>, stick: &mut Stick<'_>) -> Result<Vec<Measure>> {
    let data = run.dataset(split, dir)?;
    let config = &run.config.evaluate;
    let count = config.reconstruction_items.min(data.len());
    let mut rng = Rng::new(config.seed).fork("reconstructions");
    let (mut originals, mut decoded) = (Vec::new(), Vec::new());
    for start in (0..count).step_by(config.batch_size) {
        let indices: Vec<usize> = (start..(start + config.batch_size).min(count)).collect();
        let x = data.batch(&indices, &mut rng)?.to_device(&run.device)?.x;
        decoded.push(lsgm_engine::reconstructions(&run.model, &x, &run.config.sample, &mut rng)?);
        originals.push(x);
    }
    if originals.is_empty() {
        return Ok(Vec::new());
    }
    let speed = decoding_speed(run, &originals[0], &mut rng)?;
    let (originals, decoded) = (cat(&originals)?, cat(&decoded)?);
    let mut measures =
        stick.hold("reconstructions", |y| run.modality.measure_reconstructions(&originals, &decoded, y))?;
    measures.extend(speed);
    Ok(measures)
}

/// The real-time factor of the decoder alone, where items are played.
fn decoding_speed(run: &Run, x: &Tensor, rng: &mut Rng) -> Result<Option<Measure>> {
    let Some(seconds) = run.modality.seconds() else { return Ok(None) };
    let autoencoder = &run.model.autoencoder;
    let latents = autoencoder.encode(x, &mut Pass::eval(rng))?.latents()?;
    let clock = Instant::now();
    autoencoder.decode(&latents, &mut Pass::eval(rng))?.mean()?;
    let items = latents.prior.dims().first().copied().unwrap_or(1);
    Ok(Some(real_time_factor("decoding", clock.elapsed().as_secs_f64(), items as f64 * seconds)))
}

fn real_time_factor(what: &str, computing: f64, playing: f64) -> Measure {
    let meaning = format!("{what}: seconds of computation for a second of what is played");
    Measure::new(format!("real_time_factor_{what}"), computing / playing, "", meaning)
}

fn samples(run: &Run, count: usize, stick: &mut Stick<'_>) -> Result<(Vec<Measure>, Option<String>)> {
    let mut rng = Rng::new(run.config.evaluate.seed).fork("samples");
    let mut progress = Progress::new("sample");
    let config = &run.config.sample;
    let drawn = lsgm_engine::sample(&run.model, count, config, &run.device, &mut rng, &mut |share| {
        progress.update(share, "");
    })?;
    drop(progress);
    let sampling = super::sheets::sampling(count, config, &drawn);
    let mut measures = stick.hold("samples", |y| run.modality.measure_samples(&drawn.items, y))?;
    let playing = run.modality.seconds().map(|seconds| seconds * count as f64);
    measures.extend(playing.map(|playing| real_time_factor("sampling", drawn.seconds, playing)));
    Ok((measures, Some(sampling)))
}

fn cat(parts: &[Tensor]) -> Result<Tensor> {
    Tensor::cat(parts, 0).map_err(|e| lsgm_core::Error::from(e).into())
}

/// Makes the yardsticks that a modality measures with.
struct Stick<'a> {
    run: &'a Run,
    data_dir: Option<PathBuf>,
    cache_dir: PathBuf,
    rng: Rng,
}

impl<'a> Stick<'a> {
    fn new(run: &'a Run, dir: Option<&Path>) -> Result<Self> {
        let rng = Rng::new(run.config.evaluate.seed).fork("measures");
        Ok(Self { run, data_dir: run.data_dir(dir)?, cache_dir: cache_dir(&run.path), rng })
    }

    fn hold(
        &mut self,
        what: &str,
        measure: impl FnOnce(&mut Yardstick<'_>) -> lsgm_core::Result<Vec<Measure>>,
    ) -> Result<Vec<Measure>> {
        let mut progress = Progress::new(what);
        let mut yardstick = Yardstick {
            data_dir: self.data_dir.as_deref(),
            cache_dir: &self.cache_dir,
            device: &self.run.device,
            rng: &mut self.rng,
            progress: &mut |share| progress.update(share, ""),
        };
        match measure(&mut yardstick) {
            // The bounds took longer than this, and need no more than the split itself.
            Err(e) if e.is_input() => {
                tracing::warn!("{what} are not measured: {e}");
                Ok(Vec::new())
            }
            other => Ok(other?),
        }
    }
}

/// `LSGM_CACHE`, else the user's cache folder, so that runs on the same data share it, else the run directory.
fn cache_dir(run: &Path) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    folder("LSGM_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|d| d.join("lsgm")))
        .or_else(|| folder("HOME").map(|d| d.join(".cache").join("lsgm")))
        .unwrap_or_else(|| run.join("cache"))
}
