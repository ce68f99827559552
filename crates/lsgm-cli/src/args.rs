//! The command line as the user types it.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lsgm_core::Split;
use lsgm_nn::Precision;
use lsgm_prior::solvers::{Grid, Solver};

use crate::device::DeviceChoice;

/// Train, sample and evaluate latent score-based generative models.
#[derive(Debug, Parser)]
#[command(name = "lsgm", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Number of threads [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = positive())]
    pub(crate) threads: Option<usize>,

    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model: first the autoencoder, then everything together
    Train(Train),
    /// Draw new items from a trained model
    Sample(Sample),
    /// Show items of the data beside their reconstructions
    Reconstruct(Reconstruct),
    /// Show paths through the latent space between items of the data
    Interpolate(Interpolate),
    /// Complete an item of which a part is given
    Infill(Infill),
    /// Measure a trained model on data: the NELBO and its parts
    Evaluate(Evaluate),
    /// Make a run directory of a checkpoint in the published LSGM or NVAE layout
    Import(Import),
    /// Try a config before training: data, model, one measured step of each stage
    Check(Check),
    /// Say what there is to compute with, and why there is no more
    Devices,
    /// List, show, fetch and check the known data sets
    #[command(subcommand)]
    Data(Data),
    /// Write a crate with a modality of your own, which trains as it is, to begin with
    NewModality(NewModality),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Config file; with --resume, the run directory will do
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,

    /// Folder of the data, in place of the one that the config names
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Run directory [default: runs/ and the name of the config]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Change a config key, such as train.batch_size=64 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Which part of the training to do
    #[arg(long, value_enum, default_value_t = StageArgument::All)]
    pub(crate) stage: StageArgument,

    /// Training time, such as 90s, 10m or 1h30m, in place of the lengths in the config
    #[arg(long, value_name = "T", value_parser = lsgm_engine::parse_duration)]
    pub(crate) time_budget: Option<Duration>,

    /// Continue the run in the run directory
    #[arg(long)]
    pub(crate) resume: bool,

    /// Seed of everything random, in place of train.seed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    #[command(flatten)]
    pub(crate) device: DeviceArgument,
}

/// Where a command computes.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgument {
    /// Where to compute: auto (the first GPU, or the CPU where there is none), cpu, cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageArgument {
    /// The autoencoder with an N(0, I) prior
    Vae,
    /// Autoencoder and score-based prior together; needs a finished first stage
    Lsgm,
    /// Both, one after the other
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Sample {
    #[command(flatten)]
    pub(crate) sheet: Sheet,

    /// Number of items
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) count: usize,

    #[command(flatten)]
    pub(crate) solver: SolverChoice,

    #[command(flatten)]
    pub(crate) batch_norm: BatchNormChoice,

    /// Write the denoising of the first items, from noise to data, to this file as well; it knows no candidates
    #[arg(long, value_name = "FILE")]
    pub(crate) film: Option<PathBuf>,
}

/// Which statistics the batch norms of a decoder use.
#[derive(Debug, Args)]
pub(crate) struct BatchNormChoice {
    /// Let the decoder's batch norms follow N batches of the prior's samples first, in place of the statistics stored in
    /// the run
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) readjust_bn: Option<usize>,
}

/// How samples are drawn.
#[derive(Debug, Args)]
pub(crate) struct SolverChoice {
    /// Solver of the reverse diffusion, in place of sample.solver
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Solver::ALL.map(Solver::name)))]
    pub(crate) solver: Option<String>,

    /// Steps of the solvers other than rk45, in place of sample.steps
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) steps: Option<usize>,

    /// How these steps are spread over time, in place of sample.grid
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Grid::ALL.map(Grid::name)))]
    pub(crate) grid: Option<String>,

    /// Relative and absolute tolerance of rk45, in place of sample.tolerance
    #[arg(long, value_name = "X")]
    pub(crate) tol: Option<f64>,

    /// Standard deviation of the noise that sampling starts from, in place of sample.temperature
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,

    /// How often what a latent's context says counts (prior.network.kind = "mixture"), in place of sample.context
    #[arg(long, value_name = "X")]
    pub(crate) context: Option<f64>,

    /// Time below which --context counts, in place of sample.context_below
    #[arg(long, value_name = "T")]
    pub(crate) context_below: Option<f64>,

    /// Items drawn for each one wanted, of which the least surprising is kept, in place of sample.candidates
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) candidates: Option<usize>,

    /// In which numbers a GPU computes, in place of sample.precision
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Precision::ALL.map(Precision::name)))]
    pub(crate) precision: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Reconstruct {
    #[command(flatten)]
    pub(crate) sheet: Sheet,

    #[command(flatten)]
    pub(crate) items: ItemChoice,

    /// Take the latents to noise and back by the probability-flow ODE before they are decoded
    #[arg(long)]
    pub(crate) through_prior: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Interpolate {
    #[command(flatten)]
    pub(crate) sheet: Sheet,

    #[command(flatten)]
    pub(crate) items: ItemChoice,

    /// Items on each path, its two ends included
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_two())]
    pub(crate) steps: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Infill {
    #[command(flatten)]
    pub(crate) sheet: Sheet,

    /// The item, as the modality understands it. Text: each `_` is an unknown token, and a `*` at the end leaves open what
    /// follows
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) template: String,

    /// Number of items
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive())]
    pub(crate) count: usize,

    /// Steps of the guided diffusion
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive())]
    pub(crate) steps: usize,

    /// Weight of what is known in it
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) guidance: f64,

    /// Steps of gradient ascent on the latents afterwards
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) refinements: usize,
}

/// A run, and a file that shows items.
#[derive(Debug, Args)]
pub(crate) struct Sheet {
    /// Run directory
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,

    /// File to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) device: DeviceArgument,
}

/// Which items are shown: some of the data, or the user's own.
#[derive(Debug, Args)]
pub(crate) struct ItemChoice {
    /// Number of items (of paths, for interpolate) from the data
    #[arg(long, value_name = "N", value_parser = positive(), required_unless_present = "items")]
    pub(crate) count: Option<usize>,

    /// Items of your own, in place of the data's: a line of text or the path of a file each, as the modality
    /// understands it; two for each path of interpolate
    #[arg(long, value_name = "ITEM", num_args = 1.., conflicts_with = "count")]
    pub(crate) items: Vec<String>,

    #[command(flatten)]
    pub(crate) data: DataChoice,
}

/// Where the items come from.
#[derive(Debug, Args)]
pub(crate) struct DataChoice {
    /// Folder of the data, in place of the one that the run names
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Split of the data
    #[arg(long, default_value = "test", value_parser = split())]
    pub(crate) split: Split,
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// Run directory
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,

    #[command(flatten)]
    pub(crate) data: DataChoice,

    /// Evaluate the first N items alone
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) limit: Option<usize>,

    /// Bounds beside the NELBO, in place of those that the config asks for: `nelbo` (none), `ode`, `iw:K` with K
    /// posterior samples for each item; of all items, or of the first --limit (repeatable)
    #[arg(long, value_name = "BOUND", value_delimiter = ',')]
    pub(crate) bound: Vec<Bound>,

    /// Draw N samples and measure them, in place of evaluate.samples
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,

    #[command(flatten)]
    pub(crate) solver: SolverChoice,

    #[command(flatten)]
    pub(crate) batch_norm: BatchNormChoice,

    /// Change a key of [evaluate], such as evaluate.ode_items=0 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the NELBO of each item, its terms and the ODE's bound to this file, as CSV in nats
    #[arg(long, value_name = "FILE")]
    pub(crate) items: Option<PathBuf>,

    /// Compare the bounds with those of another model, item by item: a file that --items has written for it
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) device: DeviceArgument,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A .safetensors, .pt or .pth file, or a folder of them
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,

    /// Run directory to make
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Recompute the outputs that the files carry, and make nothing if they differ
    #[arg(long)]
    pub(crate) verify: bool,

    /// Folder of the data that the run goes on with
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Change a config key of the run, such as train.batch_size=64 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// A bound of the negative log-likelihood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Cross entropy by denoising score matching.
    Nelbo,
    /// With log p(z0) from the probability-flow ODE.
    Ode,
    /// Importance-weighted, with so many posterior samples.
    Iw(usize),
}

impl std::str::FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nelbo" => Ok(Self::Nelbo),
            "ode" => Ok(Self::Ode),
            _ => match text.strip_prefix("iw:").and_then(|k| k.parse().ok()) {
                Some(k) if (1..=100_000).contains(&k) => Ok(Self::Iw(k)),
                _ => Err("use nelbo, ode or iw:K with a number K from 1, such as iw:16".to_owned()),
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Config file
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,

    /// Folder of the data, in place of the one that the config names
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// File for the first batch of the training [default: the name of the config and -batch]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// Change a config key, such as train.batch_size=64 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    #[command(flatten)]
    pub(crate) device: DeviceArgument,
}

#[derive(Debug, Args)]
pub(crate) struct NewModality {
    /// Name of the modality in configs, such as piano-roll
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Folder to write
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Depend on the lsgm sources in this folder, and share their target folder, in place of the published crate
    #[arg(long, value_name = "DIR")]
    pub(crate) lsgm: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// List the known data sets
    List,
    /// Show the card of a data set: sources, files, splits, licence, citation
    Show {
        /// Name of the data set
        name: String,
    },
    /// Bring the files of a data set to this machine
    Fetch {
        /// Name of the data set
        name: String,
    },
    /// Fit the tokenizer that a config asks for, and write its tokenizer.json
    Tokenizer {
        /// Config file
        config: PathBuf,
        /// Folder of the data, in place of the one that the config names
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Change a config key, such as data.tokenizer.vocabulary=4000 (repeatable)
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// File to write
        #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
        out: PathBuf,
    },
    /// Check the files of a data set
    Check {
        /// Name of the data set
        name: String,
        /// Folder of the data, in place of the one that the card names
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

/// A number from 1.
fn positive() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=u64::from(u32::MAX)).map(|n| n as usize)
}

fn at_least_two() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(2..=10_000).map(|n| n as usize)
}

fn split() -> impl TypedValueParser<Value = Split> {
    PossibleValuesParser::new(Split::ALL.map(Split::name)).try_map(|name| name.parse::<Split>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bounds_are_read() {
        let line = "lsgm evaluate run --bound ode,iw:16 --bound nelbo";
        let Command::Evaluate(evaluate) = Arguments::try_parse_from(line.split(' ')).unwrap().command else {
            unreachable!()
        };
        assert_eq!(evaluate.bound, [Bound::Ode, Bound::Iw(16), Bound::Nelbo]);
        for wrong in ["elbo", "iw", "iw:0", "iw:-1", "iw:many"] {
            assert!(wrong.parse::<Bound>().unwrap_err().contains("iw:K"), "{wrong}");
        }
    }

    #[test]
    fn durations_and_splits_are_checked() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let Command::Train(train) = parse("lsgm train a.toml --time-budget 1h30m --threads 2").unwrap().command else {
            unreachable!()
        };
        assert_eq!(train.time_budget, Some(Duration::from_secs(5400)));
        for wrong in [
            "lsgm train a.toml --time-budget soon",
            "lsgm evaluate run --split dev",
            "lsgm sample run --count 0 --out a.png",
            "lsgm train a.toml --threads 0",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
