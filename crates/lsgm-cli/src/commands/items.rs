//! The bounds of each item, as a table in a file, and their comparison with those of another model.

use std::fs;
use std::path::Path;

use lsgm_engine::{Estimate, ItemBounds};

use crate::{Error, Result};

const COLUMNS: [&str; 6] = ["item", "nelbo", "nelbo_normal_prior", "reconstruction", "cross_entropy", "neg_entropy"];

/// A line of names and one for each item, separated by commas; nats.
pub(super) fn to_csv(items: &ItemBounds) -> String {
    let columns =
        [&items.nelbo, &items.nelbo_normal_prior, &items.reconstruction, &items.cross_entropy, &items.neg_entropy];
    let mut text = COLUMNS.join(",") + "\n";
    for i in 0..items.nelbo.len() {
        let numbers: Vec<String> = columns.iter().map(|column| format!("{:.6}", column[i])).collect();
        text.push_str(&format!("{i},{}\n", numbers.join(",")));
    }
    text
}

/// The NELBO of each item that another model was evaluated on.
#[derive(Debug)]
pub(super) struct Others {
    name: String,
    nelbo: Vec<f64>,
}

impl Others {
    /// Read what `--items` has written.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::unreadable(path, &e))?;
        let name = path.display().to_string();
        let advice = "write it with `lsgm evaluate OTHER_RUN --items FILE`";
        let refuse = |line: usize, what: String| Error::usage(format!("{name}, line {line}: {what}: {advice}"));
        let mut lines = text.lines().zip(1..);
        let place = lines
            .next()
            .and_then(|(names, _)| names.split(',').position(|name| name == COLUMNS[1]))
            .ok_or_else(|| refuse(1, format!("there is no column `{}`", COLUMNS[1])))?;
        let nelbo = lines
            .map(|(line, number)| {
                let field = line.split(',').nth(place).unwrap_or_default();
                field.trim().parse().map_err(|_| refuse(number, format!("`{field}` is not a number")))
            })
            .collect::<Result<_>>()?;
        Ok(Self { name, nelbo })
    }

    /// Refuse a comparison with other items, before they are evaluated.
    pub(super) fn check(&self, items: usize) -> Result<()> {
        if self.nelbo.len() == items {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{}: it has {} items, and {items} are to be evaluated: give both evaluations the same --split and --limit",
            self.name,
            self.nelbo.len()
        )))
    }

    /// How far the NELBO is above that of the other model, paired by item.
    pub(super) fn difference(&self, items: &ItemBounds) -> Estimate {
        Estimate::nats(&items.nelbo.iter().zip(&self.nelbo).map(|(a, b)| a - b).collect::<Vec<f64>>())
    }
}
