//! Published `args` as sections of a config, beside those of the model.

use lsgm_image::ImageShape;
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::autoencoder::Architecture;

/// `modality`, `[data]` and `[train]` for a model with these `args`.
pub fn sections(args: &Json, architecture: &Architecture) -> Table {
    let mut table = Table::new();
    let binary = architecture.image.bits == 1;
    table.insert("modality".into(), if binary { "binary" } else { "image" }.into());
    table.insert("data".into(), data(args, &architecture.image).into());
    table.insert("train".into(), train(args).into());
    // Published samplers go on to here, past the cut-off of the training.
    table.insert("sample".into(), Table::from_iter([("t_eps".to_owned(), Value::Float(1e-5))]).into());
    table
}

fn data(args: &Json, image: &ImageShape) -> Table {
    let whole = |n: usize| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let mut data = Table::new();
    data.insert("height".into(), whole(image.height));
    data.insert("width".into(), whole(image.width));
    let set = match args.get("dataset").and_then(Json::as_str).unwrap_or_default() {
        known @ ("mnist" | "omniglot" | "cifar10" | "ffhq") => Some(known),
        "celeba_256" => Some("celeba-hq"),
        _ => None,
    };
    if image.bits == 1 {
        data.insert("set".into(), set.unwrap_or("mnist").into());
        return data;
    }
    match set {
        Some(set) => data.insert("set".into(), set.into()),
        None => data.insert("kind".into(), "image-folder".into()),
    };
    data.insert("channels".into(), whole(image.channels));
    data.insert("bits".into(), Value::Integer(image.bits.into()));
    // Published models of photographs are trained on both sides of a mirror.
    data.insert("flip".into(), (image.channels == 3).into());
    data
}

/// What `args` say of the training; the rest is as usual here.
fn train(args: &Json) -> Table {
    let number = |key: &str| args.get(key).and_then(Json::as_i64).filter(|n| *n > 0).map(Value::Integer);
    let rate = |key: &str| args.get(key).and_then(Json::as_f64).filter(|r| *r > 0.0).map(Value::Float);
    let epochs = || number("epochs").unwrap_or(Value::Integer(100));
    let mut train = Table::new();
    let mut vae = Table::from_iter([("epochs".to_owned(), epochs())]);
    let mut lsgm = Table::from_iter([("epochs".to_owned(), epochs())]);
    let copy = |table: &mut Table, key: &str, value: Option<Value>| {
        table.extend(value.map(|value| (key.to_owned(), value)));
    };
    // Theirs is that of one process of many.
    let processes = |key: &str| args.get(key).and_then(Json::as_i64).filter(|n| *n > 0).unwrap_or(1);
    let all = processes("num_process_per_node").saturating_mul(processes("num_proc_node"));
    let batch = args.get("batch_size").and_then(Json::as_i64).filter(|n| *n > 0).map(|n| n.saturating_mul(all));
    copy(&mut train, "batch_size", batch.map(Value::Integer));
    copy(&mut vae, "learning_rate", rate("learning_rate_vae"));
    copy(&mut lsgm, "vae_learning_rate", rate("learning_rate_vae"));
    copy(&mut lsgm, "prior_learning_rate", rate("learning_rate_dae"));
    let final_ratio = |rate: &str, least: &str| match (args.get(rate)?.as_f64()?, args.get(least)?.as_f64()?) {
        (rate, least) if least > 0.0 && least <= rate => Some(Value::Float(least / rate)),
        _ => None,
    };
    copy(&mut lsgm, "vae_final_ratio", final_ratio("learning_rate_vae", "learning_rate_min_vae"));
    copy(&mut lsgm, "final_ratio", final_ratio("learning_rate_dae", "learning_rate_min_dae"));
    copy(&mut vae, "regularizer", rate("weight_decay_norm_vae"));
    copy(&mut lsgm, "regularizer", rate("weight_decay_norm_vae"));
    copy(&mut lsgm, "prior_regularizer", rate("weight_decay_norm_dae"));
    copy(&mut train, "ema_decay", rate("ema_decay").filter(|decay| decay.as_float().is_some_and(|decay| decay < 1.0)));
    train.insert("vae".into(), vae.into());
    train.insert("lsgm".into(), lsgm.into());
    train
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_image::NvaeConfig;
    use serde_json::json;

    fn of(args: Json, image: ImageShape) -> Table {
        sections(&args, &Architecture { nvae: NvaeConfig::default(), image })
    }

    #[test]
    fn binary_and_colour_models_get_their_data() {
        let args = json!({ "dataset": "mnist", "epochs": 200, "learning_rate_dae": 3e-4, "batch_size": 32,
            "num_process_per_node": 4, "num_proc_node": 2 });
        let table = of(args, ImageShape { channels: 1, height: 28, width: 28, bits: 1 });
        assert_eq!(table["modality"].as_str(), Some("binary"));
        assert_eq!(table["data"]["set"].as_str(), Some("mnist"));
        assert_eq!(table["train"]["batch_size"].as_integer(), Some(256));
        assert_eq!(table["train"]["lsgm"]["prior_learning_rate"].as_float(), Some(3e-4));
        assert!(table["train"]["lsgm"].get("vae_learning_rate").is_none());
        assert!(table["train"]["lsgm"].get("final_ratio").is_none());
        let table =
            of(json!({ "dataset": "celeba_256" }), ImageShape { channels: 3, height: 256, width: 256, bits: 5 });
        assert_eq!(table["data"]["set"].as_str(), Some("celeba-hq"));
        assert_eq!((table["data"]["bits"].as_integer(), table["data"]["flip"].as_bool()), (Some(5), Some(true)));
        let table =
            of(json!({ "dataset": "lsun_church_64" }), ImageShape { channels: 3, height: 64, width: 64, bits: 8 });
        assert_eq!(table["data"]["kind"].as_str(), Some("image-folder"));
        assert_eq!(table["train"]["vae"]["epochs"].as_integer(), Some(100));
    }

    #[test]
    fn penalties_and_falling_rates_are_kept() {
        let args = json!({ "dataset": "omniglot", "learning_rate_vae": 1e-4, "learning_rate_min_vae": 1e-5,
            "learning_rate_dae": 3e-4, "learning_rate_min_dae": 3e-4, "weight_decay_norm_vae": 1e-2,
            "weight_decay_norm_dae": 1e-3, "ema_decay": 0.9999 });
        let table = of(args, ImageShape { channels: 1, height: 28, width: 28, bits: 1 });
        let (train, lsgm) = (&table["train"], &table["train"]["lsgm"]);
        let number = |value: &Value| value.as_float().unwrap();
        assert!((number(&lsgm["vae_final_ratio"]) - 0.1).abs() < 1e-12);
        assert_eq!((number(&lsgm["final_ratio"]), number(&train["ema_decay"])), (1.0, 0.9999));
        assert_eq!((number(&lsgm["regularizer"]), number(&train["vae"]["regularizer"])), (1e-2, 1e-2));
        assert_eq!(number(&lsgm["prior_regularizer"]), 1e-3);
    }
}
