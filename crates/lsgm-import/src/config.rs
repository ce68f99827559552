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
    let real = |key: &str| args.get(key).and_then(Json::as_f64).filter(|v| *v > 0.0).map(Value::Float);
    // Published samplers go on to here, past the cut-off of the training.
    let (t_eps, tolerance) = (real("eval_ode_eps"), real("eval_ode_solver_tol"));
    let sample = [("t_eps", Some(t_eps.clone().unwrap_or(Value::Float(1e-5)))), ("tolerance", tolerance.clone())];
    table.insert("sample".into(), given(sample).into());
    table.insert("evaluate".into(), given([("ode_t_eps", t_eps), ("ode_tolerance", tolerance)]).into());
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
    let real = |key: &str| args.get(key).and_then(Json::as_f64);
    let whole = |key: &str| args.get(key).and_then(Json::as_i64).filter(|n| *n > 0);
    let positive = |key: &str| real(key).filter(|v| *v > 0.0).map(Value::Float);
    let penalty = |key: &str| real(key).filter(|v| *v >= 0.0).map(Value::Float);
    let share = |part: &str, of: &str| match (real(part)?, real(of)?) {
        (part, of) if part > 0.0 && part <= of => Some(Value::Float(part / of)),
        _ => None,
    };
    let epochs = Some(Value::Integer(whole("epochs").unwrap_or(100)));
    let (warmup, rate) = (share("warmup_epochs", "epochs"), positive("learning_rate_vae"));
    let falling = share("learning_rate_min_vae", "learning_rate_vae");
    // Each of the two stages has a program of its own, and the arguments of one.
    let joint = args.get("learning_rate_dae").is_some() || args.get("weight_decay_norm_dae").is_some();
    let (vae, lsgm) = if joint {
        let spectral = args.get("custom_conv_dae").and_then(Json::as_bool).map(|custom| Value::Boolean(!custom));
        let lsgm = [
            ("epochs", epochs.clone()),
            ("warmup", warmup),
            ("vae_learning_rate", rate),
            ("vae_final_ratio", falling),
            ("regularizer", penalty("weight_decay_norm_vae")),
            ("prior_learning_rate", positive("learning_rate_dae")),
            ("final_ratio", share("learning_rate_min_dae", "learning_rate_dae")),
            ("prior_regularizer", penalty("weight_decay_norm_dae")),
            ("prior_regularizer_spectral", spectral),
        ];
        (given([("epochs", epochs)]), given(lsgm))
    } else {
        let vae = [
            ("epochs", epochs.clone()),
            ("warmup", warmup),
            ("learning_rate", rate),
            ("final_ratio", falling),
            ("regularizer", penalty("weight_decay_norm")),
        ];
        (given(vae), given([("epochs", epochs)]))
    };
    // Theirs is that of one process of many.
    let processes = |key: &str| whole(key).unwrap_or(1);
    let all = processes("num_process_per_node").saturating_mul(processes("num_proc_node"));
    given([
        ("batch_size", whole("batch_size").map(|items| Value::Integer(items.saturating_mul(all)))),
        ("ema_decay", real("ema_decay").filter(|decay| (0.0..1.0).contains(decay)).map(Value::Float)),
        ("vae", Some(vae.into())),
        ("lsgm", Some(lsgm.into())),
    ])
}

/// The keys that have a value.
fn given<const N: usize>(entries: [(&str, Option<Value>); N]) -> Table {
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
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
    fn the_ode_goes_on_to_where_the_arguments_say() {
        let cifar = ImageShape { channels: 3, height: 32, width: 32, bits: 8 };
        let table = of(json!({ "dataset": "cifar10", "eval_ode_eps": 1e-6, "eval_ode_solver_tol": 1e-5 }), cifar);
        assert_eq!(
            (table["sample"]["t_eps"].as_float(), table["sample"]["tolerance"].as_float()),
            (Some(1e-6), Some(1e-5))
        );
        let evaluate = &table["evaluate"];
        assert_eq!((evaluate["ode_t_eps"].as_float(), evaluate["ode_tolerance"].as_float()), (Some(1e-6), Some(1e-5)));
        let table = of(json!({ "dataset": "cifar10" }), cifar);
        assert_eq!(table["sample"]["t_eps"].as_float(), Some(1e-5));
        assert!(table["sample"].get("tolerance").is_none() && table["evaluate"].as_table().unwrap().is_empty());
    }

    #[test]
    fn penalties_and_falling_rates_are_kept() {
        let omniglot = ImageShape { channels: 1, height: 28, width: 28, bits: 1 };
        let joint = json!({ "dataset": "omniglot", "epochs": 1500, "warmup_epochs": 20, "learning_rate_vae": 1e-4,
            "learning_rate_min_vae": 1e-5, "learning_rate_dae": 3e-4, "learning_rate_min_dae": 3e-4,
            "weight_decay_norm_vae": 0.0, "weight_decay_norm_dae": 1e-3, "custom_conv_dae": true, "ema_decay": 0.9999 });
        let table = of(joint, omniglot);
        let (train, lsgm) = (&table["train"], &table["train"]["lsgm"]);
        let number = |value: &Value| value.as_float().unwrap();
        assert!((number(&lsgm["vae_final_ratio"]) - 0.1).abs() < 1e-12);
        assert!((number(&lsgm["warmup"]) - 20.0 / 1500.0).abs() < 1e-12);
        assert_eq!((number(&lsgm["final_ratio"]), number(&train["ema_decay"])), (1.0, 0.9999));
        assert_eq!((number(&lsgm["regularizer"]), number(&lsgm["prior_regularizer"])), (0.0, 1e-3));
        assert_eq!(lsgm["prior_regularizer_spectral"].as_bool(), Some(false));
        assert_eq!(train["vae"].as_table().unwrap().keys().collect::<Vec<_>>(), ["epochs"]);

        let alone = json!({ "dataset": "omniglot", "epochs": 200, "learning_rate_vae": 1e-2,
            "learning_rate_min_vae": 1e-4, "weight_decay_norm": 3e-2 });
        let table = of(alone, omniglot);
        let vae = &table["train"]["vae"];
        assert_eq!((number(&vae["learning_rate"]), number(&vae["regularizer"])), (1e-2, 3e-2));
        assert!((number(&vae["final_ratio"]) - 0.01).abs() < 1e-12);
        assert_eq!(table["train"]["lsgm"].as_table().unwrap().keys().collect::<Vec<_>>(), ["epochs"]);
    }
}
