//! The figures of an evaluation, for people and for programs.

use std::fmt::Write;

use lsgm_core::{Measure, Split};
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
    /// Beside another model.
    #[serde(flatten)]
    pub(crate) differences: Option<Differences>,
    pub(crate) measures: &'a Measures,
}

/// Bounds less those of another model, paired by item.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Differences {
    pub(crate) nelbo_difference: Estimate,
    /// Of the items that both have it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nelbo_ode_difference: Option<Estimate>,
}

/// What the modality measures beside the bounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measures {
    /// The NELBO in the modality's own units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) bound: Vec<Measure>,
    /// What simple models reach on the split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) baselines: Vec<Measure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reconstructions: Vec<Measure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) samples: Vec<Measure>,
    /// How the samples were drawn and what they cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sampling: Option<String>,
}

impl Measures {
    fn table(&self) -> String {
        let parts = [
            ("the bound in other units", &self.bound),
            ("simple models of the same split", &self.baselines),
            ("reconstructions", &self.reconstructions),
            (self.sampling.as_deref().unwrap_or("samples"), &self.samples),
        ];
        let shown = parts.iter().filter(|(_, measures)| !measures.is_empty());
        shown.map(|(title, measures)| format!("\n{title}\n{}", measures.iter().map(line).collect::<String>())).collect()
    }
}

fn line(m: &Measure) -> String {
    let stderr = m.stderr.map(|e| format!("{e:.4}")).unwrap_or_default();
    format!("{:<24}{:>12.4}{stderr:>10}  {:<9} {}\n", m.name, m.value, m.unit, m.meaning)
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
    if let Some(differences) = &report.differences {
        let meaning = "nelbo less that of the other model, paired by item";
        rows.push(("nelbo_difference", &differences.nelbo_difference, meaning));
        if let Some(ode) = &differences.nelbo_ode_difference {
            rows.push(("nelbo_ode_difference", ode, "the same of nelbo_ode, on the items that both have it for"));
        }
    }
    let importance = e.iw.as_ref().map(|iw| {
        format!("importance-weighted bound, {} samples an item, log p(z) from the ODE, {} items", iw.samples, iw.n)
    });
    if let (Some(iw), Some(meaning)) = (&e.iw, &importance) {
        rows.push(("iw_bound", &iw.iw_bound, meaning));
    }
    let mut text = format!("{:<22}{:>10}{:>10}  {:<9} meaning\n", "", "mean", "stderr", "unit");
    for (name, estimate, meaning) in rows {
        text.push_str(&row(name, estimate, meaning));
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "alpha (share of the score network): mean {:.4}, min {:.4}, max {:.4}",
        e.alpha.mean, e.alpha.min, e.alpha.max
    );
    let p = &e.posterior;
    let information = p.mutual_information.map(|i| format!(", mutual information {:.2} nats", i.mean));
    let _ = writeln!(
        text,
        "posterior: {} of {} dimensions active, KL to N(0, I) {:.2} nats{}",
        p.active_units,
        p.units,
        p.kl.mean,
        information.unwrap_or_default()
    );
    let _ = write!(text, "{} items of the {} split in {}", e.n, report.split, format_duration(e.seconds));
    if let Some(ode) = &e.ode {
        let _ = write!(text, "; ODE: {} items, {:.0} NFE, {}", ode.n, ode.nfe, format_duration(ode.seconds));
        if let Some(error) = ode.probe_stderr {
            let _ = write!(text, ", {error:.3} nats of the standard error from the trace");
        }
    }
    if let Some(iw) = &e.iw {
        let _ = write!(text, "; IW: {} items, {:.0} NFE, {}", iw.n, iw.nfe, format_duration(iw.seconds));
    }
    text.push('\n');
    text + &report.measures.table()
}

fn row(name: &str, e: &Estimate, meaning: &str) -> String {
    let digits = if e.unit == "bits/dim" { 4 } else { 2 };
    format!("{name:<22}{:>10.digits$}{:>10.digits$}  {:<9} {meaning}\n", e.mean, e.stderr, e.unit)
}
