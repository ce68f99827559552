//! The NELBO of each item, as a table in a file, and its comparison with that of another model.

use std::fs;
use std::path::Path;

use lsgm_engine::{Estimate, ItemBounds};

use crate::{Error, Result};

const COLUMNS: [&str; 7] =
    ["item", "nelbo", "nelbo_normal_prior", "reconstruction", "cross_entropy", "neg_entropy", "side_kl"];

/// A line of names and one for each item, separated by commas: a digest of the item, and nats.
pub(super) fn to_csv(items: &ItemBounds) -> String {
    let columns = [
        &items.nelbo,
        &items.nelbo_normal_prior,
        &items.reconstruction,
        &items.cross_entropy,
        &items.neg_entropy,
        &items.side_kl,
    ];
    let row = |(i, digest): (usize, &u64)| {
        let numbers: Vec<String> = columns.iter().map(|column| format!("{:.6}", column[i])).collect();
        format!("{digest:016x},{}\n", numbers.join(","))
    };
    let rows: String = items.digest.iter().enumerate().map(row).collect();
    COLUMNS.join(",") + "\n" + &rows
}

/// Which items another model was evaluated on, and the NELBO of each.
#[derive(Debug)]
pub(super) struct Others {
    name: String,
    items: Vec<(u64, f64)>,
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
            Some((names, _)) if names.starts_with("item,nelbo,") => {}
            _ => return Err(refuse(1, "its columns are not `item`, `nelbo` and so on".to_owned())),
        }
        let row = |(line, number): (&str, usize)| {
            let mut fields = line.split(',').map(str::trim);
            let (item, nelbo) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let item = u64::from_str_radix(item, 16).map_err(|_| refuse(number, format!("`{item}` is no item")))?;
            let nelbo = nelbo.parse().map_err(|_| refuse(number, format!("`{nelbo}` is not a number")))?;
            Ok((item, nelbo))
        };
        let items = lines.map(row).collect::<Result<_>>()?;
        Ok(Self { name, items })
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

    /// How far the NELBO is above that of the other model, paired by item.
    pub(super) fn difference(&self, items: &ItemBounds) -> Result<Estimate> {
        if let Some(i) = self.items.iter().zip(&items.digest).position(|((other, _), item)| other != item) {
            return Err(Error::usage(format!(
                "{}: its item {i} is another one: give both evaluations the same data, --split, data.seed and evaluate.seed",
                self.name
            )));
        }
        Ok(Estimate::nats(&items.nelbo.iter().zip(&self.items).map(|(a, (_, b))| a - b).collect::<Vec<f64>>()))
    }
}
