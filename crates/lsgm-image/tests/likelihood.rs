//! Probabilities of pixels sum to one, and agree with the formulas.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Likelihood, Rng};
use lsgm_image::DiscretizedLogistic;
use lsgm_nn::ops::LogisticForm;

/// Random parameters for one position, `[1, P, 1, 1]` in `f64`. Log scales reach from sharp to flat.
fn parameters(form: LogisticForm, channels: usize, seed: u64) -> Tensor {
    let count = form.parameters(channels);
    let mut rng = Rng::new(seed);
    let values: Vec<f64> = (0..count).map(|_| 2.0 * rng.normal() - 0.8).collect();
    Tensor::from_vec(values, (1, count, 1, 1), &Device::Cpu).unwrap()
}

/// `p(x)` of pixels, all with the same parameters.
fn probabilities(parameters: &Tensor, form: LogisticForm, levels: usize, pixels: &[Vec<usize>]) -> Vec<f64> {
    let (n, channels) = (pixels.len(), pixels[0].len());
    let repeated = parameters.broadcast_as((n, parameters.dim(1).unwrap(), 1, 1)).unwrap().contiguous().unwrap();
    let values: Vec<f64> = pixels.iter().flatten().map(|k| *k as f64 / (levels - 1) as f64).collect();
    let x = Tensor::from_vec(values, (n, channels, 1, 1), &Device::Cpu).unwrap();
    let p = DiscretizedLogistic::new(repeated, channels, levels, form);
    p.log_prob(&x).unwrap().to_vec1::<f64>().unwrap().into_iter().map(f64::exp).collect()
}

fn all_pixels(channels: usize, levels: usize) -> Vec<Vec<usize>> {
    (0..levels.pow(channels as u32))
        .map(|i| (0..channels).map(|c| i / levels.pow(c as u32) % levels).collect())
        .collect()
}

#[test]
fn grey_values_and_small_colours_sum_to_one() {
    for seed in 0..20 {
        for (form, channels, levels) in [
            (LogisticForm::Mixture(10), 1, 256),
            (LogisticForm::Mixture(10), 1, 32),
            (LogisticForm::Single, 1, 256),
            (LogisticForm::Mixture(10), 3, 8),
            (LogisticForm::Single, 3, 8),
        ] {
            let p = parameters(form, channels, seed);
            let total: f64 = probabilities(&p, form, levels, &all_pixels(channels, levels)).iter().sum();
            assert!((total - 1.0).abs() < 1e-9, "{form:?}, {channels} channels, {levels} levels: {total}");
        }
    }
}

/// Over all values of blue with red and green given, over all of green and blue with red given, and over all reds of what
/// these are.
#[test]
fn all_256_values_of_a_colour_sum_to_its_share_of_the_others() {
    let form = LogisticForm::Mixture(10);
    for seed in 0..10 {
        let p = parameters(form, 3, seed);
        let v = p.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (red, green) = ([0, 255, 17][seed as usize % 3], [255, 0, 130][seed as usize % 3]);
        let normalizer: f64 = v[..10].iter().map(|l| l.exp()).sum();
        let channel = |m: usize, c: usize, kind: usize| v[10 + c * 30 + kind * 10 + m];
        let of_red = |m: usize, red: usize| v[m].exp() / normalizer * mass(red, channel(m, 0, 0), channel(m, 0, 1));
        let of_green = |m: usize| {
            let mean = channel(m, 1, 0) + channel(m, 0, 2).tanh() * (2.0 * red as f64 / 255.0 - 1.0);
            mass(green, mean, channel(m, 1, 1))
        };
        let check = |pixels: Vec<Vec<usize>>, expected: f64| {
            let total: f64 = probabilities(&p, form, 256, &pixels).iter().sum();
            assert!((total / expected - 1.0).abs() < 1e-9, "{total} {expected}");
        };
        check(
            (0..256).map(|blue| vec![red, green, blue]).collect(),
            (0..10).map(|m| of_red(m, red) * of_green(m)).sum(),
        );
        let whole: f64 = (0..256).flat_map(|red| (0..10).map(move |m| (m, red))).map(|(m, red)| of_red(m, red)).sum();
        assert!((whole - 1.0).abs() < 1e-9, "{whole}");
        if seed < 3 {
            let rest = (0..256).flat_map(|green| (0..256).map(move |blue| vec![red, green, blue])).collect();
            check(rest, (0..10).map(|m| of_red(m, red)).sum());
        }
    }
}

/// Mass of the bin of value `k` of 256, written down as it is defined.
fn mass(k: usize, mean: f64, log_scale: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let scale = log_scale.max(-7.0).exp();
    let border = |k: f64| sigmoid((2.0 * (k - 0.5) / 255.0 - 1.0 - mean) / scale);
    let (below, above) =
        (if k == 0 { 0.0 } else { border(k as f64) }, if k == 255 { 1.0 } else { border(k as f64 + 1.0) });
    above - below
}

#[test]
fn single_precision_keeps_the_digits_where_differences_of_sigmoids_have_none() {
    let form = LogisticForm::Mixture(10);
    for seed in 0..20 {
        let p = parameters(form, 3, seed);
        let x = Rng::new(seed).uniform_tensor((1, 3, 1, 1), DType::F64, &Device::Cpu).unwrap();
        let x = ((x * 255.0).unwrap().round().unwrap() / 255.0).unwrap();
        let log_prob = |dtype| {
            let p = DiscretizedLogistic::new(p.to_dtype(dtype).unwrap(), 3, 256, form);
            p.log_prob(&x).unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0]
        };
        let (narrow, wide) = (log_prob(DType::F32), log_prob(DType::F64));
        assert!((narrow - wide).abs() < 1e-4 * wide.abs().max(1.0), "{narrow} {wide}");
    }
}

#[test]
fn samples_follow_the_probabilities() {
    let form = LogisticForm::Mixture(10);
    let (levels, draws) = (4, 20_000);
    let p = parameters(form, 3, 3);
    let count = form.parameters(3);
    let repeated = p.broadcast_as((1, count, draws, 1)).unwrap().contiguous().unwrap();
    let sample = DiscretizedLogistic::new(repeated, 3, levels, form).sample(1.0, &mut Rng::new(5)).unwrap();
    let sample = (sample * 3.0).unwrap().reshape((3, draws)).unwrap().t().unwrap().to_vec2::<f64>().unwrap();
    let mut counts = vec![0usize; 64];
    for pixel in sample {
        counts[pixel.iter().enumerate().map(|(c, v)| v.round() as usize * 4usize.pow(c as u32)).sum::<usize>()] += 1;
    }
    // Drawing cuts red off at its border before green sees it, and rounds what blue sees; the frequencies of red are exact.
    let expected = probabilities(&p, form, levels, &all_pixels(3, levels));
    for red in 0..4 {
        let share = |f: &dyn Fn(usize) -> f64| (red..64).step_by(4).map(f).sum::<f64>();
        let (seen, wanted) = (share(&|i| counts[i] as f64) / draws as f64, share(&|i| expected[i]));
        assert!(
            (seen - wanted).abs() < 4.0 * (wanted * (1.0 - wanted) / draws as f64).sqrt() + 1e-9,
            "{seen} {wanted}"
        );
    }
}

#[test]
fn cold_samples_and_means_of_one_sharp_component_are_its_mean() {
    let form = LogisticForm::Single;
    let values = vec![0.25f32, -1.5, 0.5, -30.0, -30.0, -30.0];
    let p = Tensor::from_vec(values, (1, 6, 1, 1), &Device::Cpu).unwrap();
    let p = DiscretizedLogistic::new(p, 3, 256, form);
    let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(p.mean().unwrap()), [0.625, 0.0, 0.75]);
    let nearest = [159.0f32, 0.0, 191.0].map(|k| k / 255.0);
    assert_eq!(flat(p.sample(0.0, &mut Rng::new(1)).unwrap()), nearest);
}
