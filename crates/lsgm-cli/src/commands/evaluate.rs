//! `lsgm evaluate RUN`.

use std::path::Path;

use lsgm_core::Split;

use crate::args::Evaluate;
use crate::output::Output;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::report::{Report, table};
use crate::run::Run;
use crate::{Error, Result, terminal};

pub(super) fn run(args: &Evaluate, registry: &Registry) -> Result<()> {
    let json = args.json.as_deref().map(Output::prepare).transpose()?;
    let run = Run::open(&args.run, registry, &args.set, [])?;
    measure(&run, args.data.split, args.data.data.as_deref(), args.limit, json.as_ref())
}

/// Evaluate the first `limit` items of a split: a table on standard output, and JSON if a file is given for it.
pub(super) fn measure(
    run: &Run,
    split: Split,
    dir: Option<&Path>,
    limit: Option<usize>,
    json: Option<&Output>,
) -> Result<()> {
    let data = run.dataset(split, dir)?;
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
    let report = Report { version: env!("CARGO_PKG_VERSION"), modality, split, evaluation: &evaluation };
    if let Some(output) = json {
        let mut text =
            serde_json::to_vec_pretty(&report).map_err(|e| Error::Core(lsgm_core::Error::Other(e.into())))?;
        text.push(b'\n');
        output.write(&text)?;
    }
    terminal::print(&table(&report))
}
