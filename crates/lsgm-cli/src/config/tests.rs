use std::path::Path;

use candle_core::{DType, Device};

use super::*;

const PATH: &str = "configs/x.toml";
const MINIMAL: &str = "modality = 'binary'\n[train]\nseed = 3\n[train.vae]\nsteps = 5\n[train.lsgm]\nepochs = 2\n";

fn resolve(text: &str) -> Result<Config> {
    Config::resolve(Tree::parse(text, Path::new(PATH))?, &Registry::default())
}

fn refused(text: &str) -> String {
    match resolve(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => {
            assert_eq!(format!("{:?}", e.exit_code()), format!("{:?}", std::process::ExitCode::from(2)));
            e.to_string()
        }
    }
}

#[test]
fn a_resolved_config_is_complete_and_reads_back_the_same() {
    let config = resolve(MINIMAL).unwrap();
    let text = config.to_toml().unwrap();
    for part in [
        "modality = \"binary\"",
        "[data]",
        "[autoencoder]",
        "[prior.sde]",
        "[prior.network]",
        "seed = 3",
        "batch_size",
        "[train.lsgm]",
        "epochs = 2",
        "[sample]",
        "[evaluate]",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let again = resolve(&text).unwrap();
    assert_eq!(again.to_toml().unwrap(), text);
    assert!(again.differences(&config).unwrap().is_empty());
}

#[test]
fn differences_are_told_by_key() {
    let (a, b) = (resolve(MINIMAL).unwrap(), resolve(&MINIMAL.replace("steps = 5", "time_budget = '1m'")).unwrap());
    let expected = ["train.vae.steps: 5 -> \"(not set)\"", "train.vae.time_budget: \"(not set)\" -> \"1m\""];
    assert_eq!(a.differences(&b).unwrap(), expected);
}

#[test]
fn every_default_can_be_set_from_the_command_line() {
    let mut tree = Tree::parse(MINIMAL, Path::new(PATH)).unwrap();
    for argument in [
        "train.seed=9",
        "prior.mixed=false",
        "sample.tolerance=1e-3",
        "autoencoder.latent_channels=2",
        "train.vae.epochs=1",
    ] {
        tree.set_argument(argument).unwrap();
    }
    let config = Config::resolve(tree, &Registry::default()).unwrap();
    assert_eq!((config.train.seed, config.prior.mixed, config.sample.tolerance), (9, false, 1e-3));
    assert_eq!((config.train.vae.steps, config.train.vae.epochs), (None, Some(1.0)));
    assert!(config.to_toml().unwrap().contains("latent_channels = 2"));
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    for (extra, place, key, nearest) in [
        ("[trian]\n", 8, "trian", "train"),
        ("[data]\nst = 1\n", 9, "data.st", "data.set"),
        ("[autoencoder]\nlatent_chanels = 1\n", 9, "autoencoder.latent_chanels", "autoencoder.latent_channels"),
        ("[prior]\nmixd = true\n", 9, "prior.mixd", "prior.mixed"),
        ("[prior.sde]\nbeta_strat = 1\n", 9, "prior.sde.beta_strat", "prior.sde.beta_start"),
        ("[sample]\ntol = 1\n", 9, "sample.tol", "sample.tolerance"),
        ("[evaluate]\node_item = 1\n", 9, "evaluate.ode_item", "evaluate.ode_items"),
        ("[train.vae.optimizer]\nbeta3 = 1\n", 9, "train.vae.optimizer.beta3", "train.vae.optimizer.beta"),
        ("[vae]\n", 8, "vae", "train.vae"),
        // A key of the default kind of network, and nothing near among those of this one.
        ("[prior.network]\nkind = 'mixture'\nblocks = 2\n", 10, "prior.network.blocks", "prior.network.spread"),
    ] {
        let message = refused(&format!("{MINIMAL}{extra}"));
        assert!(message.starts_with(&format!("{PATH}:{place}: unknown key `{key}`")), "{message}");
        assert!(message.contains(&format!("the nearest known key is `{nearest}")), "{message}");
    }
}

#[test]
fn values_out_of_range_are_told_with_their_place() {
    let message = refused(&MINIMAL.replace("seed = 3", "batch_size = 0"));
    assert!(message.starts_with("configs/x.toml:3: config key `train.batch_size`: "), "{message}");
    let message = refused(&MINIMAL.replace("steps = 5", "time_budget = 'soon'"));
    assert!(message.starts_with("configs/x.toml:5: config key `train.vae.time_budget`: "), "{message}");
    let message = refused(&MINIMAL.replace("steps = 5", ""));
    assert!(message.starts_with("configs/x.toml:4: config key `train.vae`: give exactly one of"), "{message}");
    let message = refused(&format!("{MINIMAL}[sample]\ncontext = 4\n"));
    assert!(message.starts_with("configs/x.toml:9: config key `sample.context`: "), "{message}");
    let message = refused(&format!("{MINIMAL}[sample]\ncontext_below = 0\n"));
    assert!(message.starts_with("configs/x.toml:9: config key `sample.context_below`: "), "{message}");
    resolve(&format!("{MINIMAL}[sample]\ncontext = 4\n[prior.network]\nkind = 'mixture'\n")).unwrap();
    let weighted = format!("{MINIMAL}[prior.network]\nkind = 'mixture'\ncategory_weight = 2\n");
    let message = refused(&weighted);
    assert!(message.starts_with("configs/x.toml:10: config key `prior.network.category_weight`: "), "{message}");
    resolve(&weighted.replace("epochs = 2", "epochs = 2\nalgorithm = 3")).unwrap();
}

#[test]
fn the_modality_is_asked_for_and_checked() {
    let message = refused("[train]\nseed = 1\n");
    assert_eq!(message, "configs/x.toml: `modality` must be given");
    let message = refused("modality = 'binar'\n");
    let known = "Known are audio, binary, image, text";
    assert_eq!(message, format!("configs/x.toml:1: `modality` is \"binar\"; did you mean \"binary\"? {known}"));
    let message = refused("modality = 3\n");
    assert!(message.starts_with("configs/x.toml:1: `modality` must be a string, found integer"), "{message}");
}

#[test]
fn a_missing_file_and_broken_text_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    assert!(Tree::read(&path).unwrap_err().to_string().ends_with("c.toml: there is no such file"));
    std::fs::write(&path, b"a = 1\nb = '\xff'\n").unwrap();
    assert!(Tree::read(&path).unwrap_err().to_string().ends_with("c.toml:2: the file is not UTF-8 text"));
    std::fs::write(&path, b"a = 1\na = 2\n").unwrap();
    assert!(Tree::read(&path).unwrap_err().to_string().contains("c.toml:2: not valid TOML: "));
}

/// A config of the project, and the model that it describes.
fn shipped(name: &str) -> (Config, crate::run::Parts) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let config = Config::resolve(Tree::parse(&text, &path).unwrap(), &Registry::default()).unwrap();
    let parts = crate::run::Parts::new(&config, &lsgm_core::Assets::new()).unwrap();
    (config, parts)
}

#[test]
fn the_published_mnist_model_has_its_published_size() {
    let (_, parts) = shipped("mnist.toml");
    let store = lsgm_core::ParamStore::new(DType::F32, &Device::Cpu, lsgm_core::Rng::new(0));
    let model = parts.spec.build(&store.root()).unwrap();
    assert_eq!(model.latent_shape(), lsgm_core::LatentShape::plane(40, 8, 8));
    let millions = |count: usize| (count as f64 / 1e5).round() / 10.0;
    let vae = store.count("encoder.") + store.count("decoder.");
    assert_eq!((millions(vae), millions(store.count("prior."))), (3.0, 63.8));
}

#[test]
fn every_config_of_the_project_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut names = Vec::new();
    for folder in [folder.clone(), folder.join("ablations")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                if let Err(e) = Config::resolve(Tree::parse(&text, &path).unwrap(), &Registry::default()) {
                    panic!("{}: {e}", path.display());
                }
                names.push(path);
            }
        }
    }
    assert!(names.len() > 18, "{names:?}");
}

#[test]
fn the_other_image_configs_describe_models() {
    for name in ["omniglot", "cifar10-balanced", "cifar10-likelihood", "celeba-hq-256", "mnist-nvae-cpu", "cifar10-cpu"]
    {
        shipped(&format!("{name}.toml"));
    }
}
