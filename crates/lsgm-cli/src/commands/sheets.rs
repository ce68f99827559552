//! `lsgm sample`, `reconstruct` and `interpolate`: a model's items on a sheet that a person can look at.

use std::path::Path;

use candle_core::Tensor;
use lsgm_core::{Arrangement, Artifact, Rng, Split};
use lsgm_engine::{InfillOptions, SampleConfig, Samples};

use crate::args::{Infill, Interpolate, ItemChoice, Reconstruct, Sample, SolverChoice};
use crate::output::Output;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::run::{Override, Run};
use crate::{Error, Result, terminal};

/// Items and moments of a film.
const FILM_ITEMS: usize = 8;
const FILM_FRAMES: usize = 12;

pub(super) fn sample(args: &Sample, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let film_output = args.film.as_deref().map(Output::prepare).transpose()?;
    let run = Run::open(&args.sheet.run, registry, &[], solver_overrides(&args.solver), args.sheet.device.device)?;
    run.readjust_batch_norm(&args.batch_norm, args.sheet.seed)?;
    samples(&run, args.count, args.sheet.seed)?.show(&run, &output)?;
    match film_output {
        Some(output) => film(&run, args.count.min(FILM_ITEMS), args.sheet.seed)?.show(&run, &output),
        None => Ok(()),
    }
}

/// What the arguments of a solver change in the config.
pub(super) fn solver_overrides(choice: &SolverChoice) -> Vec<Override> {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let overrides = [
        Override::optional("sample.solver", "--solver", choice.solver.clone()),
        Override::optional("sample.steps", "--steps", choice.steps.map(whole)),
        Override::optional("sample.grid", "--grid", choice.grid.clone()),
        Override::optional("sample.tolerance", "--tol", choice.tol),
        Override::optional("sample.temperature", "--temperature", choice.temperature),
        Override::optional("sample.context", "--context", choice.context),
        Override::optional("sample.context_below", "--context-below", choice.context_below),
        Override::optional("sample.candidates", "--candidates", choice.candidates.map(whole)),
        Override::optional("sample.precision", "--precision", choice.precision.clone()),
    ];
    overrides.into_iter().flatten().collect()
}

pub(super) fn reconstruct(args: &Reconstruct, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let run = Run::open(&args.sheet.run, registry, &[], [], args.sheet.device.device)?;
    let mut rng = Rng::new(args.sheet.seed).fork("reconstruct");
    let (x, source) = chosen_items(&run, &args.items, 1, &mut rng)?;
    reconstructions(&run, &x, &source, args.through_prior, &mut rng)?.show(&run, &output)
}

pub(super) fn interpolate(args: &Interpolate, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let run = Run::open(&args.sheet.run, registry, &[], [], args.sheet.device.device)?;
    let mut rng = Rng::new(args.sheet.seed).fork("interpolate");
    let (ends, _) = chosen_items(&run, &args.items, 2, &mut rng)?;
    paths(&run, &ends, args.steps, &mut rng)?.show(&run, &output)
}

pub(super) fn infill(args: &Infill, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let run = Run::open(&args.sheet.run, registry, &[], [], args.sheet.device.device)?;
    let template = run.modality.read_template(&args.template).map_err(|e| run.config.locate(e.into()))?;
    let mut rng = Rng::new(args.sheet.seed).fork("infill");
    let options = InfillOptions { steps: args.steps, guidance: args.guidance, refinements: args.refinements };
    let config = &run.config.sample;
    let found = lsgm_engine::infill(&run.model, &template, args.count, &options, config, &run.device, &mut rng)?;
    let (count, nats, samples) = (args.count, found.disagreement, found.samples);
    let caption = format!(
        "{count} items that agree with the template (what is known costs {nats:.2} nats): {:.0} NFE, {:.2} s",
        samples.nfe, samples.seconds
    );
    Sheet { items: samples.items, arrangement: Arrangement::Samples, caption }.show(&run, &output)
}

/// `per` items for each one counted: the user's own, or drawn from the data. And where they are from, in a few words.
fn chosen_items(run: &Run, choice: &ItemChoice, per: usize, rng: &mut Rng) -> Result<(Tensor, String)> {
    let Some(count) = choice.count else {
        if !choice.items.len().is_multiple_of(per) {
            let given = choice.items.len();
            return Err(Error::usage(format!("--items: {given} items make no pairs: give two for each path")));
        }
        let x = run.modality.read_items(&choice.items).map_err(|e| run.config.locate(e.into()))?;
        return Ok((x.to_device(&run.device)?, "given items".to_owned()));
    };
    let split = choice.data.split;
    let x = draw_items(run, split, choice.data.data.as_deref(), per * count, rng)?;
    Ok((x, format!("items of the {split} split")))
}

/// Items, and how they belong together.
pub(super) struct Sheet {
    items: Tensor,
    arrangement: Arrangement,
    /// What they are and what they cost, in a few words.
    caption: String,
}

impl Sheet {
    /// Write the sheet, and say so on standard output.
    pub(super) fn show(&self, run: &Run, output: &Output) -> Result<()> {
        let paths = output.write_artifacts(&self.artifacts(run, output)?)?;
        let Some((first, others)) = paths.split_first() else { return Ok(()) };
        let others = match others {
            [] => String::new(),
            [one] => format!("; and {}", one.display()),
            [second, .., last] => format!("; and {} to {}", second.display(), last.display()),
        };
        terminal::print(&format!("{}: {}{others}\n", first.display(), self.caption))
    }
}

impl Sheet {
    /// In the format that the file's name asks for, if the modality knows it.
    fn artifacts(&self, run: &Run, output: &Output) -> Result<Vec<Artifact>> {
        Ok(run.modality.render_as(&output.extension(), &self.items, self.arrangement)?)
    }
}

/// `count` new items.
pub(super) fn samples(run: &Run, count: usize, seed: u64) -> Result<Sheet> {
    let mut rng = Rng::new(seed).fork("sample");
    let mut progress = Progress::new("sample");
    let config = &run.config.sample;
    let samples = lsgm_engine::sample(&run.model, count, config, &run.device, &mut rng, &mut |share| {
        progress.update(share, "");
    })?;
    let caption = sampling(count, config, &samples);
    Ok(Sheet { items: samples.items, arrangement: Arrangement::Samples, caption })
}

/// How samples were drawn, in a line.
pub(super) fn sampling(count: usize, config: &SampleConfig, samples: &Samples) -> String {
    let chosen = match config.candidates {
        1 => String::new(),
        n => format!(", each the least surprising of {n}"),
    };
    format!("{count} samples{chosen}, {}: {:.0} NFE, {:.2} s", config.solver, samples.nfe, samples.seconds)
}

/// The way of `count` items from noise to data.
fn film(run: &Run, count: usize, seed: u64) -> Result<Sheet> {
    // The generator of the samples, so that these start from the noise of the first of them, before any choice.
    let mut rng = Rng::new(seed).fork("sample");
    let config = &run.config.sample;
    let film = lsgm_engine::film(&run.model, count, FILM_FRAMES, config, &run.device, &mut rng)?;
    let caption = format!("{count} items from noise to data, {}: {:.0} NFE", config.solver, film.nfe);
    Ok(Sheet { items: film.items, arrangement: Arrangement::Paths(FILM_FRAMES), caption })
}

/// Items beside their reconstructions; `source` says what they are.
pub(super) fn reconstructions(
    run: &Run,
    x: &Tensor,
    source: &str,
    through_prior: bool,
    rng: &mut Rng,
) -> Result<Sheet> {
    let (config, count) = (&run.config.sample, x.dim(0)?);
    let (items, cost) = if through_prior {
        let found = lsgm_engine::reconstruct_through_prior(&run.model, x, config, rng)?;
        (found.items, format!(" through the prior: {:.0} NFE, {:.2} s", found.nfe, found.seconds))
    } else {
        (lsgm_engine::reconstruct(&run.model, x, config, rng)?, String::new())
    };
    let caption = format!("{count} {source} with their reconstructions{cost}");
    Ok(Sheet { items, arrangement: Arrangement::Pairs, caption })
}

/// Paths of `steps` items between the ends `a0, b0, a1, b1, ...`.
pub(super) fn paths(run: &Run, ends: &Tensor, steps: usize, rng: &mut Rng) -> Result<Sheet> {
    let count = ends.dim(0)? / 2;
    let side = |s: u32| ends.index_select(&Tensor::arange_step(s, 2 * count as u32, 2, ends.device())?, 0);
    let (from, to) = (side(0)?, side(1)?);
    let paths = lsgm_engine::interpolate(&run.model, &from, &to, steps, &run.config.sample, rng)?;
    let caption = format!("{count} paths of {steps} items: {:.0} NFE, {:.2} s", paths.nfe, paths.seconds);
    Ok(Sheet { items: paths.items, arrangement: Arrangement::Paths(steps), caption })
}

/// `count` different items of a split, in random order.
pub(super) fn draw_items(run: &Run, split: Split, dir: Option<&Path>, count: usize, rng: &mut Rng) -> Result<Tensor> {
    let data = run.dataset(split, dir)?;
    if count > data.len() {
        let len = data.len();
        return Err(Error::usage(format!("{count} items are needed, but the {split} split has {len}: lower --count")));
    }
    let mut indices: Vec<usize> = (0..data.len()).collect();
    rng.shuffle(&mut indices);
    indices.truncate(count);
    Ok(data.batch(&indices, rng)?.to_device(&run.device)?.x)
}
