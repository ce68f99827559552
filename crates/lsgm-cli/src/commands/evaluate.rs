//! `lsgm evaluate RUN`.

use std::path::Path;

use lsgm_core::Split;

use crate::args::{Bound, Evaluate};
use crate::commands::items::{Others, to_csv};
use crate::commands::measures;
use crate::commands::sheets::solver_overrides;
use crate::output::Output;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::report::{Report, table};
use crate::run::{Override, Run};
use crate::{Error, Result, terminal};

pub(super) fn run(args: &Evaluate, registry: &Registry) -> Result<()> {
    let wanted = Destinations {
        json: args.json.as_deref().map(Output::prepare).transpose()?,
        items: args.items.as_deref().map(Output::prepare).transpose()?,
        against: args.against.as_deref().map(Others::read).transpose()?,
    };
    let mut overrides = bound_overrides(&args.bound, args.limit);
    overrides.extend(args.samples.map(|n| number("evaluate.samples", "--samples", n)));
    overrides.extend(solver_overrides(&args.solver));
    let run = Run::open(&args.run, registry, &args.set, overrides, args.device.device)?;
    run.readjust_batch_norm(&args.batch_norm, run.config.evaluate.seed)?;
    measure(&run, args.data.split, args.data.data.as_deref(), args.limit, &wanted)
}

/// What becomes of the figures beside the table on standard output.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    pub(super) json: Option<Output>,
    /// For the NELBO of each item.
    pub(super) items: Option<Output>,
    /// What they are compared with.
    pub(super) against: Option<Others>,
}

/// What `--bound` changes in the config: the bounds that it names are computed on every item, the others on none.
fn bound_overrides(bounds: &[Bound], limit: Option<usize>) -> Vec<Override> {
    if bounds.is_empty() {
        return Vec::new();
    }
    let all = limit.unwrap_or(u32::MAX as usize);
    let importance = bounds.iter().find_map(|b| if let Bound::Iw(k) = b { Some(*k) } else { None });
    let ode = if bounds.contains(&Bound::Ode) { all } else { 0 };
    let mut overrides = vec![number("evaluate.ode_items", "--bound", ode)];
    overrides.push(number("evaluate.iw_items", "--bound", if importance.is_some() { all } else { 0 }));
    overrides.extend(importance.map(|k| number("evaluate.iw_samples", "--bound iw:", k)));
    overrides
}

fn number(key: &'static str, argument: &str, n: usize) -> Override {
    Override { key, value: i64::try_from(n).unwrap_or(i64::MAX).into(), label: format!("{argument} {n}") }
}

/// Evaluate the first `limit` items of a split: a table on standard output, and the files that are wanted.
pub(super) fn measure(
    run: &Run,
    split: Split,
    dir: Option<&Path>,
    limit: Option<usize>,
    wanted: &Destinations,
) -> Result<()> {
    let data = run.dataset(split, dir)?;
    if let Some(others) = &wanted.against {
        others.check(limit.unwrap_or(usize::MAX).min(data.len()))?;
    }
    let mut progress = Progress::new("evaluate");
    let evaluation = lsgm_engine::evaluate(
        &run.model,
        data.as_ref(),
        run.modality.data_dim(),
        limit,
        &run.config.evaluate,
        &run.device,
        &mut |share| progress.update(share, ""),
    )?;
    drop(progress);
    let modality = run.config.modality.as_str();
    let measures = measures::gather(run, split, dir, &evaluation)?;
    // Other items are no reason to lose what was found.
    let differences = wanted.against.as_ref().map(|others| others.differences(&evaluation.items));
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        modality,
        split,
        evaluation: &evaluation,
        differences: differences.as_ref().and_then(|d| d.as_ref().ok()).copied(),
        measures: &measures,
    };
    if let Some(output) = &wanted.items {
        output.write(to_csv(&evaluation.items).as_bytes())?;
    }
    if let Some(output) = &wanted.json {
        let mut text =
            serde_json::to_vec_pretty(&report).map_err(|e| Error::Core(lsgm_core::Error::Other(e.into())))?;
        text.push(b'\n');
        output.write(&text)?;
    }
    terminal::print(&table(&report))?;
    differences.transpose().map(drop)
}
