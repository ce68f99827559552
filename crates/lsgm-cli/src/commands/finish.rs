//! What a training ends with: sheets and figures in the run directory.

use std::path::Path;

use lsgm_core::{Rng, Split};

use crate::commands::evaluate::{Destinations, measure};
use crate::commands::sheets::{Sheet, draw_items, paths, reconstructions, samples};
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
    shown("samples", samples(run, run.config.train.sample_count.max(1), 0), run, sheet("samples")?)?;
    if items == 0 {
        return Ok(());
    }
    let mut noise = rng.fork("reconstruct");
    let x = draw_items(run, split, None, RECONSTRUCTIONS.min(items), &mut noise)?;
    let pairs = reconstructions(run, &x, "items of the test split", false, &mut noise);
    shown("reconstructions", pairs, run, sheet("reconstructions")?)?;
    if items >= 2 {
        let mut noise = rng.fork("interpolate");
        let ends = draw_items(run, split, None, 2 * PATHS.min(items / 2), &mut noise)?;
        shown("interpolations", paths(run, &ends, PATH_STEPS, &mut noise), run, sheet("interpolations")?)?;
    }
    match run.config.evaluate.after_training {
        Some(0) => Ok(()),
        limit => {
            let json = Some(Output::prepare(&folder.join("evaluation.json"))?);
            measure(run, split, None, limit, &Destinations { json, ..Destinations::default() })
        }
    }
}

/// Write a sheet. What cannot be drawn, such as latents that no solver can follow, keeps nobody from the figures, and the
/// files count, whether or not somebody still reads what is printed about them.
fn shown(what: &str, sheet: Result<Sheet>, run: &Run, output: Output) -> Result<()> {
    let sheet = match sheet {
        Ok(sheet) => sheet,
        Err(Error::Core(e)) => {
            tracing::warn!("no {what}: {e}");
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    match sheet.show(run, &output) {
        Err(Error::BrokenPipe) => Ok(()),
        other => other,
    }
}
