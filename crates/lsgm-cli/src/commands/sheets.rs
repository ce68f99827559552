//! `lsgm sample`, `reconstruct` and `interpolate`: a model's items on a sheet that a person can look at.

use std::path::Path;

use candle_core::Tensor;
use lsgm_core::{Arrangement, Rng, Split};

use crate::args::{Interpolate, Reconstruct, Sample};
use crate::output::Output;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::run::{Override, Run};
use crate::{Error, Result, terminal};

pub(super) fn sample(args: &Sample, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let steps = args.steps.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let overrides = [
        Override::optional("sample.solver", "--solver", args.solver.clone()),
        Override::optional("sample.steps", "--steps", steps),
        Override::optional("sample.tolerance", "--tol", args.tol),
        Override::optional("sample.temperature", "--temperature", args.temperature),
    ];
    let run = Run::open(&args.sheet.run, registry, &[], overrides.into_iter().flatten())?;
    samples(&run, args.sheet.count, args.sheet.seed)?.show(&run, &output)
}

pub(super) fn reconstruct(args: &Reconstruct, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let run = Run::open(&args.sheet.run, registry, &[], [])?;
    let choice = Choice { split: args.data.split, dir: args.data.data.as_deref(), seed: args.sheet.seed };
    reconstructions(&run, args.sheet.count, &choice)?.show(&run, &output)
}

pub(super) fn interpolate(args: &Interpolate, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&args.sheet.out)?;
    let run = Run::open(&args.sheet.run, registry, &[], [])?;
    let choice = Choice { split: args.data.split, dir: args.data.data.as_deref(), seed: args.sheet.seed };
    paths(&run, args.sheet.count, args.steps, &choice)?.show(&run, &output)
}

/// Items, and how they belong together.
pub(super) struct Sheet {
    items: Tensor,
    arrangement: Arrangement,
    /// What they are and what they cost, in a few words.
    caption: String,
}

/// Which items of the data: a split, the folder it is read from, the seed of the draw.
pub(super) struct Choice<'a> {
    pub(super) split: Split,
    pub(super) dir: Option<&'a Path>,
    pub(super) seed: u64,
}

impl Sheet {
    /// Write the sheet, and say so on standard output.
    pub(super) fn show(&self, run: &Run, output: &Output) -> Result<()> {
        for path in output.write_artifacts(&run.modality.render(&self.items, self.arrangement)?)? {
            terminal::print(&format!("{}: {}\n", path.display(), self.caption))?;
        }
        Ok(())
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
    let caption = format!("{count} samples, {}: {:.0} NFE, {:.2} s", config.solver, samples.nfe, samples.seconds);
    Ok(Sheet { items: samples.items, arrangement: Arrangement::Samples, caption })
}

/// `count` items of the data beside their reconstructions.
pub(super) fn reconstructions(run: &Run, count: usize, choice: &Choice<'_>) -> Result<Sheet> {
    let mut rng = Rng::new(choice.seed).fork("reconstruct");
    let x = draw_items(run, choice, count, &mut rng)?;
    let items = lsgm_engine::reconstruct(&run.model, &x, &run.config.sample, &mut rng)?;
    let caption = format!("{count} items of the {} split with their reconstructions", choice.split);
    Ok(Sheet { items, arrangement: Arrangement::Pairs, caption })
}

/// `count` paths of `steps` items between items of the data.
pub(super) fn paths(run: &Run, count: usize, steps: usize, choice: &Choice<'_>) -> Result<Sheet> {
    let mut rng = Rng::new(choice.seed).fork("interpolate");
    let ends = draw_items(run, choice, 2 * count, &mut rng)?;
    let (from, to) = (ends.narrow(0, 0, count)?, ends.narrow(0, count, count)?);
    let paths = lsgm_engine::interpolate(&run.model, &from, &to, steps, &run.config.sample, &mut rng)?;
    let caption = format!("{count} paths of {steps} items: {:.0} NFE, {:.2} s", paths.nfe, paths.seconds);
    Ok(Sheet { items: paths.items, arrangement: Arrangement::Paths(steps), caption })
}

/// `count` different items of a split, in random order.
fn draw_items(run: &Run, choice: &Choice<'_>, count: usize, rng: &mut Rng) -> Result<Tensor> {
    let data = run.dataset(choice.split, choice.dir)?;
    if count > data.len() {
        let (split, len) = (choice.split, data.len());
        return Err(Error::usage(format!("{count} items are needed, but the {split} split has {len}: lower --count")));
    }
    let mut indices: Vec<usize> = (0..data.len()).collect();
    rng.shuffle(&mut indices);
    indices.truncate(count);
    Ok(data.batch(&indices, rng)?.to_device(&run.device)?.x)
}
