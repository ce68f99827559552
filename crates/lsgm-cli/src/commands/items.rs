//! The NELBO of each item, as a table in a file, and its comparison with that of another model.

use std::fs;
use std::path::Path;

use lsgm_engine::{Estimate, ItemBounds};

use crate::report::Differences;
use crate::{Error, Result};

const COLUMNS: [&str; 8] =
    ["item", "nelbo", "nelbo_ode", "nelbo_normal_prior", "reconstruction", "cross_entropy", "neg_entropy", "side_kl"];

/// A line of names and one for each item, separated by commas: a digest of the item, and nats; nothing for the bound of the
/// ODE behind the items that have one.
pub(super) fn to_csv(items: &ItemBounds) -> String {
    let columns = [
        &items.nelbo,
        &items.nelbo_ode,
        &items.nelbo_normal_prior,
        &items.reconstruction,
        &items.cross_entropy,
        &items.neg_entropy,
        &items.side_kl,
    ];
    let row = |(i, digest): (usize, &u64)| {
        let number = |column: &Vec<f64>| column.get(i).map(|n| format!("{n:.6}")).unwrap_or_default();
        format!("{digest:016x},{}\n", columns.map(number).join(","))
    };
    let rows: String = items.digest.iter().enumerate().map(row).collect();
    COLUMNS.join(",") + "\n" + &rows
}

/// Which items another model was evaluated on, and the bounds of each.
#[derive(Debug)]
pub(super) struct Others {
    name: String,
    items: Vec<u64>,
    nelbo: Vec<f64>,
    /// Of the first items.
    nelbo_ode: Vec<f64>,
}

impl Others {
    /// Read what `--items` has written.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::unreadable(path, &e))?;
        let name = path.display().to_string();
        let advice = "write it with `lsgm evaluate OTHER_RUN --items FILE`";
        let refuse = |line: usize, what: String| Error::usage(format!("{name}, line {line}: {what}: {advice}"));
        let mut lines = text.lines().zip(1..);
        match lines.next() {
            Some((names, _)) if names.starts_with("item,nelbo,nelbo_ode,") => {}
            _ => return Err(refuse(1, "its columns are not `item`, `nelbo`, `nelbo_ode` and so on".to_owned())),
        }
        let (mut items, mut nelbo, mut nelbo_ode) = (Vec::new(), Vec::new(), Vec::new());
        for (line, number) in lines {
            let mut fields = line.split(',').map(str::trim);
            let mut next = || fields.next().unwrap_or_default();
            let (item, bound, ode) = (next(), next(), next());
            let parsed = |field: &str| field.parse().map_err(|_| refuse(number, format!("`{field}` is not a number")));
            items.push(u64::from_str_radix(item, 16).map_err(|_| refuse(number, format!("`{item}` is no item")))?);
            nelbo.push(parsed(bound)?);
            if !ode.is_empty() {
                nelbo_ode.push(parsed(ode)?);
            }
        }
        Ok(Self { name, items, nelbo, nelbo_ode })
    }

    /// Refuse a comparison with another number of items, before they are evaluated.
    pub(super) fn check(&self, items: usize) -> Result<()> {
        if self.items.len() == items {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{}: it has {} items, and {items} are to be evaluated: give both evaluations the same --split and --limit",
            self.name,
            self.items.len()
        )))
    }

    /// How far the bounds are above those of the other model, paired by item.
    pub(super) fn differences(&self, items: &ItemBounds) -> Result<Differences> {
        if let Some(i) = self.items.iter().zip(&items.digest).position(|(other, item)| other != item) {
            return Err(Error::usage(format!(
                "{}: its item {i} is another one: give both evaluations the same data, --split, data.seed and evaluate.seed",
                self.name
            )));
        }
        let paired = |own: &[f64], other: &[f64]| own.iter().zip(other).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let ode = paired(&items.nelbo_ode, &self.nelbo_ode);
        Ok(Differences {
            nelbo_difference: Estimate::nats(&paired(&items.nelbo, &self.nelbo)),
            nelbo_ode_difference: (!ode.is_empty()).then(|| Estimate::nats(&ode)),
        })
    }
}
