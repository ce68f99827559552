//! What a training ends with: sheets and figures in the run directory.

use std::path::Path;

use lsgm_core::{Rng, Split};

use crate::commands::evaluate::measure;
use crate::commands::sheets::{draw_items, paths, reconstructions, samples};
use crate::output::Output;
use crate::run::Run;
use crate::{Error, Result};

const RECONSTRUCTIONS: usize = 32;
const PATHS: usize = 8;
const PATH_STEPS: usize = 10;

/// Show what a finished model does, on test items.
pub(super) fn run(run: &Run, folder: &Path) -> Result<()> {
    let sheet = |name: &str| Output::prepare(&folder.join("samples").join(name));
    let (split, rng) = (Split::Test, Rng::new(0));
    let items = match run.dataset(split, None) {
        Ok(data) => data.len(),
        // Data of one's own may come without a test split.
        Err(Error::Core(e)) if e.is_input() => 0,
        Err(e) => return Err(e),
    };
    unless_unread(samples(run, run.config.train.sample_count.max(1), 0)?.show(run, &sheet("samples")?))?;
    if items == 0 {
        return Ok(());
    }
    let mut noise = rng.fork("reconstruct");
    let x = draw_items(run, split, None, RECONSTRUCTIONS.min(items), &mut noise)?;
    let pairs = reconstructions(run, &x, "items of the test split", false, &mut noise)?;
    unless_unread(pairs.show(run, &sheet("reconstructions")?))?;
    if items >= 2 {
        let mut noise = rng.fork("interpolate");
        let ends = draw_items(run, split, None, 2 * PATHS.min(items / 2), &mut noise)?;
        let paths = paths(run, &ends, PATH_STEPS, &mut noise)?;
        unless_unread(paths.show(run, &sheet("interpolations")?))?;
    }
    match run.config.evaluate.after_training {
        Some(0) => Ok(()),
        limit => measure(run, split, None, limit, Some(&Output::prepare(&folder.join("evaluation.json"))?)),
    }
}

/// The files count here, whether or not somebody still reads what is printed about them.
fn unless_unread(shown: Result<()>) -> Result<()> {
    match shown {
        Err(Error::BrokenPipe) => Ok(()),
        other => other,
    }
}
