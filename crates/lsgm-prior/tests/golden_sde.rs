//! The SDEs, the mixing component, the constant of the cross entropy and the seven weightings against values of the
//! published implementation.

use lsgm_prior::{Sde, SdeConfig, Weighting};
use serde_json::Value;

fn golden() -> Option<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/sde_golden.json");
    match std::fs::read(path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) => {
            eprintln!("skipped: {path} is not there");
            None
        }
    }
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(number).collect()
}

fn sde_of(v: &Value) -> (Sde, f64) {
    let (beta_start, beta_end) = (number(&v["beta_start"]), number(&v["beta_end"]));
    let (sigma2_min, sigma2_max) = (number(&v["sigma2_min"]), number(&v["sigma2_max"]));
    let sigma2_0 = number(&v["sigma2_0"]);
    let config = match v["sde_type"].as_str().unwrap() {
        "vpsde" => SdeConfig::Vpsde { beta_start, beta_end, sigma2_0 },
        "sub_vpsde" => SdeConfig::SubVpsde { beta_start, beta_end, sigma2_0 },
        "geometric_sde" => SdeConfig::Geometric { sigma2_min, sigma2_max, sigma2_0 },
        "vesde" => SdeConfig::Vesde { sigma2_min, sigma2_max, sigma2_0 },
        other => panic!("{other}"),
    };
    (Sde::new(&config).unwrap(), number(&v["time_eps"]))
}

fn close(what: &str, mine: f64, theirs: f64) {
    assert!((mine - theirs).abs() <= 1e-9 * theirs.abs().max(1e-300), "{what}: {mine:e} instead of {theirs:e}");
}

#[test]
fn functions_of_time_match() {
    let Some(golden) = golden() else { return };
    for case in golden["cases"].as_array().unwrap() {
        let name = case["case"].as_str().unwrap();
        let (sde, t_eps) = sde_of(&case["sde"]);
        close(name, sde.cross_entropy_constant(t_eps), number(&case["cross_entropy_const"]));
        let x = numbers(&case["mixing_component"]["x"]);
        for (i, t) in numbers(&case["t"]).into_iter().enumerate() {
            close(&format!("{name} f({t})"), sde.f(t), number(&case["f"][i]));
            close(&format!("{name} g2({t})"), sde.g2(t), number(&case["g2"][i]));
            close(&format!("{name} var({t})"), sde.variance(t), number(&case["var"][i]));
            close(&format!("{name} m({t})"), sde.mean_coefficient(t), number(&case["mean_coeff"][i]));
            for (j, x) in x.iter().enumerate() {
                let theirs = number(&case["mixing_component"]["value"][i][j]);
                close(&format!("{name} mixing({t})"), sde.mixing_coefficient(t) * x, theirs);
            }
        }
    }
}

#[test]
fn weightings_match_and_undefined_ones_are_refused() {
    let Some(golden) = golden() else { return };
    let names = [
        ("ll_uniform", Weighting::LlUniform),
        ("ll_iw", Weighting::LlIw),
        ("drop_all_uniform", Weighting::UnUniform),
        ("drop_all_iw", Weighting::UnIw),
        ("drop_sigma2t_uniform", Weighting::ReUniform),
        ("drop_sigma2t_iw", Weighting::ReIw),
        ("rescale_iw", Weighting::Rescale),
    ];
    for case in golden["cases"].as_array().unwrap() {
        let (sde, t_eps) = sde_of(&case["sde"]);
        for (key, weighting) in names {
            let expected = &case["weighting"][key];
            if expected.is_null() {
                assert!(!weighting.is_defined_for(&sde) && sde.times_at(weighting, &[0.5], t_eps).is_err());
                continue;
            }
            let times = sde.times_at(weighting, &numbers(&expected["rho"]), t_eps).unwrap();
            let columns = [
                ("t", &times.t),
                ("var", &times.variance),
                ("mean_coeff", &times.mean_coefficient),
                ("g2", &times.g2),
                ("obj_weight", &times.weight),
                ("obj_weight_ll", &times.likelihood_weight),
            ];
            for (column, mine) in columns {
                for (i, (mine, theirs)) in mine.iter().zip(numbers(&expected[column])).enumerate() {
                    close(&format!("{} {key} {column} {i}", case["case"]), *mine, theirs);
                }
            }
        }
    }
}
