//! `lsgm data list | show NAME | fetch NAME | check NAME`.

use std::fmt::Write;
use std::path::Path;

use lsgm_core::Split;
use lsgm_data::card::Source;
use lsgm_data::{Card, Checksum, Fetched, FileCheck, Hub, Report, SoundCheck, SplitCheck, State, TextCheck};

use crate::args::Data;
use crate::config::{Config, Tree};
use crate::error::one_paragraph;
use crate::output::Output;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::run::{apply, data_folder};
use crate::{Error, Result, terminal};

pub(super) fn run(args: &Data, registry: &Registry) -> Result<()> {
    let hub = Hub::from_env();
    match args {
        Data::List => list(&hub),
        Data::Show { name } => show(&Card::find(name)?, &hub),
        Data::Fetch { name } => fetch(&Card::find(name)?, &hub),
        Data::Tokenizer { config, data, set, out } => tokenizer(config, data.as_deref(), set, out, registry),
        Data::Check { name, data } => check(&Card::find(name)?, data.as_deref(), &hub),
    }
}

fn list(hub: &Hub) -> Result<()> {
    let rows: Vec<[String; 4]> = Card::built_in()?
        .into_iter()
        .map(|card| {
            let state = match lsgm_data::state(&card, None, hub) {
                State::Ready(_) => "ready",
                State::Absent(_) => "absent",
            };
            [card.name, state.to_owned(), card.modality.join(", "), card.title]
        })
        .collect();
    let [name, state, modality, _] = [0, 1, 2, 3].map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        line(&mut text, format_args!("{:name$}  {:state$}  {:modality$}  {}", row[0], row[1], row[2], row[3]));
    }
    terminal::print(&text)
}

fn show(card: &Card, hub: &Hub) -> Result<()> {
    let mut text = format!("{}: {}\n", card.name, card.title);
    if !card.description.is_empty() {
        line(&mut text, format_args!("{}", card.description.trim()));
    }
    line(&mut text, format_args!("modality  {}", card.modality.join(", ")));
    if let Some(size) = card.image {
        line(&mut text, format_args!("images    {size}"));
    }
    for split in Split::ALL {
        let rule = card.splits.rule(split);
        let items = rule.items.map_or_else(|| "?".to_owned(), |n| n.to_string());
        line(&mut text, format_args!("{:<8}  {items} items, from part `{}`", split.name(), rule.part));
    }
    for source in &card.sources {
        line(&mut text, format_args!("source    {}", describe(source)));
    }
    line(&mut text, format_args!("licence   {}", card.licence));
    if let Some(homepage) = &card.homepage {
        line(&mut text, format_args!("homepage  {homepage}"));
    }
    if let Some(citation) = &card.citation {
        line(&mut text, format_args!("citation  {}", citation.trim()));
    }
    match lsgm_data::state(card, None, hub) {
        State::Ready(place) => line(&mut text, format_args!("state     ready: {place}")),
        State::Absent(reason) => line(&mut text, format_args!("state     absent: {}", one_paragraph(&reason))),
    }
    terminal::print(&text)
}

fn describe(source: &Source) -> String {
    let first = |files: Vec<&str>| files.first().map(|f| format!(" such as {f}")).unwrap_or_default();
    let details = match source {
        Source::Idx(source) => first(source.parts.values().map(|p| p.images.file.as_str()).collect()),
        Source::Parquet(source) => first(source.parts.values().flatten().map(String::as_str).collect()),
        Source::Hub(source) => format!(" {}", source.repo),
        _ => String::new(),
    };
    format!("{}{details}", source.kind())
}

fn fetch(card: &Card, hub: &Hub) -> Result<()> {
    let mut progress = Progress::new("fetch");
    let fetched = lsgm_data::fetch(card, hub, &mut |p| {
        let share = if p.total == 0 { 0.0 } else { p.done as f64 / p.total as f64 };
        progress.update(share, p.file);
    })?;
    drop(progress);
    match fetched {
        Fetched::Files(files) => {
            let lines: Vec<String> = files.iter().map(|f| format!("{}\n", f.display())).collect();
            terminal::print(&lines.concat())
        }
        _ => terminal::print(&format!("{}: nothing to fetch, the program makes the items\n", card.name)),
    }
}

/// Make what the modality makes of its data before training, and keep the tokenizer of it.
fn tokenizer(path: &Path, data: Option<&Path>, set: &[String], out: &Path, registry: &Registry) -> Result<()> {
    let output = Output::prepare(out)?;
    let mut tree = Tree::read(path)?;
    apply(&mut tree, set, [])?;
    let config = Config::resolve(tree, registry)?;
    let dir = data.map(data_folder).transpose()?.or_else(|| config.data_dir.clone());
    let assets = config.sections.prepare(dir.as_deref()).map_err(|e| config.locate(e))?;
    let Some(json) = assets.get("tokenizer.json") else {
        return Err(Error::usage(format!("{}: modality `{}` has no tokenizer", path.display(), config.modality)));
    };
    output.write(json)?;
    terminal::print(&format!("{}: {} bytes\n", out.display(), json.len()))
}

fn check(card: &Card, data: Option<&Path>, hub: &Hub) -> Result<()> {
    let dir = data.map(data_folder).transpose()?;
    let report = lsgm_data::check(card, dir.as_deref(), hub)?;
    terminal::print(&findings(&report))?;
    match report.problems.as_slice() {
        [] => Ok(()),
        problems => Err(Error::usage(format!("{} is not whole: {}", report.set, problems.join("; ")))),
    }
}

fn findings(report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.set, report.source);
    for file in &report.files {
        line(&mut text, format_args!("{}", file_line(file)));
    }
    for split in &report.splits {
        line(&mut text, format_args!("{}", split_line(split)));
    }
    for split in &report.sounds {
        line(&mut text, format_args!("{}", sound_line(split)));
    }
    for split in &report.texts {
        line(&mut text, format_args!("{}", texts_line(split)));
    }
    text
}

fn file_line(file: &FileCheck) -> String {
    let verdict = match file.checksum {
        Checksum::Match => "as it must be",
        Checksum::Mismatch => "NOT as it must be",
        Checksum::Unknown => "no other is known",
    };
    format!("{}  {} bytes  sha256 {}  {verdict}", file.path.display(), file.bytes, file.sha256)
}

fn sound_line(split: &SoundCheck) -> String {
    let rates: Vec<String> = split.rates.iter().map(|(rate, n)| format!("{n} at {rate} Hz")).collect();
    format!(
        "{:<5}  {} recordings of {:.1} s together ({}), {} labels, level {:.1} dB, {} silent",
        split.split.name(),
        split.items,
        split.seconds,
        rates.join(", "),
        split.labels.len(),
        split.level,
        split.silent
    )
}

fn split_line(split: &SplitCheck) -> String {
    let labels = match split.labels.len() {
        0 => "no labels".to_owned(),
        n => format!("{n} labels"),
    };
    let (mean, std) = (split.mean, split.std);
    format!(
        "{:<5}  {} items of {}, {labels}, mean {mean:.4}, std {std:.4}",
        split.split.name(),
        split.items,
        split.size
    )
}

fn texts_line(check: &TextCheck) -> String {
    let (split, tally) = (check.split.name(), &check.tally);
    format!(
        "{split:<5}  {} entries, {} words, {} characters, the longest entry {}; {} empty ones",
        tally.entries, check.words, tally.characters, check.longest, tally.empty
    )
}

/// Append a line; writing to a string cannot fail.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}
