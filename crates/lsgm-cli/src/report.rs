//! The figures of an evaluation, for people and for programs.

use std::fmt::Write;

use lsgm_core::Split;
use lsgm_engine::{Estimate, Evaluation, format_duration};
use serde::Serialize;

/// What `--json` writes.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    /// Version of lsgm.
    pub(crate) version: &'static str,
    /// Name of the modality.
    pub(crate) modality: &'a str,
    pub(crate) split: Split,
    #[serde(flatten)]
    pub(crate) evaluation: &'a Evaluation,
}

/// The table on standard output.
pub(crate) fn table(report: &Report<'_>) -> String {
    let e = report.evaluation;
    let mut rows = vec![
        ("nelbo", &e.nelbo, "negative ELBO with the score-based prior"),
        ("nelbo_normal_prior", &e.nelbo_normal_prior, "the same encoder and decoder under N(0, I)"),
        ("gain", &e.gain, "their difference, paired by item"),
        ("reconstruction", &e.reconstruction, "E -log p(x|z)"),
        ("cross_entropy", &e.cross_entropy, "CE(q(z|x) || p(z)), denoising score matching"),
        ("neg_entropy", &e.neg_entropy, "E log q(z|x)"),
        ("bits_per_dim", &e.bits_per_dim, "nelbo for each data dimension"),
    ];
    if let Some(ode) = &e.ode {
        rows.push(("nelbo_ode", &ode.nelbo_ode, "negative ELBO with log p(z) from the ODE, fewer items"));
        rows.push(("nelbo_same_items", &ode.nelbo_same_items, "nelbo on the items of nelbo_ode"));
    }
    let mut text = format!("{:<20}{:>10}{:>10}  {:<9} meaning\n", "", "mean", "stderr", "unit");
    for (name, estimate, meaning) in rows {
        text.push_str(&row(name, estimate, meaning));
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "alpha (share of the score network): mean {:.4}, min {:.4}, max {:.4}",
        e.alpha.mean, e.alpha.min, e.alpha.max
    );
    let _ = write!(text, "{} items of the {} split in {}", e.n, report.split, format_duration(e.seconds));
    if let Some(ode) = &e.ode {
        let _ = write!(text, "; ODE: {} items, {:.0} NFE, {}", ode.n, ode.nfe, format_duration(ode.seconds));
    }
    text.push('\n');
    text
}

fn row(name: &str, e: &Estimate, meaning: &str) -> String {
    let digits = if e.unit == "bits/dim" { 4 } else { 2 };
    format!("{name:<20}{:>10.digits$}{:>10.digits$}  {:<9} {meaning}\n", e.mean, e.stderr, e.unit)
}
