//! Samplers on distributions whose score and density are known.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Mixture, latents, points};
use lsgm_core::{LatentShape, Pass, Result, Rng};
use lsgm_prior::solvers::{Grid, Solver, SolverConfig, SolverError, guided_ancestral, sample};
use lsgm_prior::{OdeOptions, Prior, ScoreNetwork, Sde, SdeConfig, Trace, ode_log_prob};

/// `ε = -σ ∇ log p_t`, exactly, in tensor operations so that its divergence can be taken.
struct ExactScore {
    sde: Sde,
    data: Mixture,
}

impl ScoreNetwork for ExactScore {
    fn forward(&self, z: &Tensor, t: &Tensor, _: &mut Pass<'_>) -> Result<Tensor> {
        // Every solver asks for one time at once.
        let t = t.to_dtype(DType::F64)?.to_vec1::<f64>()?[0];
        let mixture = self.data.at(&self.sde, t);
        let (mut logits, mut pulls) = (Vec::new(), Vec::new());
        for (w, mean, v) in &mixture.0 {
            let mean = Tensor::new(mean, z.device())?.reshape((1, 2, 1))?.to_dtype(z.dtype())?;
            let offset = z.broadcast_sub(&mean)?;
            logits.push(offset.sqr()?.sum_keepdim(1)?.affine(-0.5 / v, w.ln() - v.ln())?);
            pulls.push((offset * (1.0 / v))?);
        }
        let logits = Tensor::cat(&logits, 2)?;
        let most = logits.max_keepdim(2)?.detach();
        let shares = logits.broadcast_sub(&most)?.exp()?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(2)?)?;
        let total = Tensor::cat(&pulls, 2)?.broadcast_mul(&shares)?.sum_keepdim(2)?;
        Ok((total * self.sde.sigma(t))?)
    }
}

const SHAPE: [usize; 3] = [0, 2, 1];

fn prior(config: &SdeConfig, data: &Mixture, t_eps: f64) -> Prior {
    let sde = Sde::new(config).unwrap();
    let network = Box::new(ExactScore { sde, data: data.clone() });
    Prior::with_network(sde, LatentShape::line(SHAPE[1], SHAPE[2]), t_eps, None, network).unwrap()
}

fn run(prior: &Prior, z1: &Tensor, config: &SolverConfig, seed: u64) -> (Tensor, usize) {
    sample(prior, z1, config, &mut Rng::new(seed), &mut |_| Ok(())).unwrap()
}

/// Of Gaussian data the flow is known: it scales the distance from the mean by the ratio of standard deviations.
#[test]
fn deterministic_solvers_converge_with_their_order() {
    let data = Mixture::gaussian(0.2);
    let t_eps = 1e-3;
    for config in [SdeConfig::default(), SdeConfig::all_defaults()[2]] {
        let prior = prior(&config, &data, t_eps);
        let z1 = Rng::new(1).normal_tensor((50, 2, 1), DType::F64, &Device::Cpu).unwrap();
        let (start, end) = (data.at(prior.sde(), 1.0), data.at(prior.sde(), t_eps));
        let ratio = (end.0[0].2 / start.0[0].2).sqrt();
        let flow = |x: [f64; 2]| [0, 1].map(|i| end.0[0].1[i] + ratio * (x[i] - start.0[0].1[i]));
        let exact: Vec<[f64; 2]> = points(&z1).into_iter().map(flow).collect();
        let error = |solver, steps| {
            let config = SolverConfig { solver, steps, ..SolverConfig::default() };
            let (z0, _) = run(&prior, &z1, &config, 0);
            let off: f64 =
                points(&z0).iter().zip(&exact).map(|(a, b)| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sum();
            (off / 50.0).sqrt()
        };
        for (solver, order) in [
            (Solver::Ddim, 1.0),
            (Solver::Heun, 2.0),
            (Solver::AdamsBashforth, 1.95),
            (Solver::DpmSolver2m, 2.0),
            (Solver::DpmSolver3m, 2.0),
        ] {
            let (coarse, fine) = (error(solver, 200), error(solver, 400));
            let slope = (coarse / fine).log2();
            eprintln!("{} {solver}: {coarse:.2e} {fine:.2e}, order {slope:.2}", config.name());
            assert!(slope > order - 0.12, "{solver}: {coarse:e} {fine:e} {slope}");
        }
        // More order, less error.
        assert!(error(Solver::DpmSolver2m, 40) < error(Solver::Ddim, 40));
        assert!(error(Solver::DpmSolver3m, 40) < error(Solver::DpmSolver2m, 40));
    }
}

#[test]
fn every_sampler_gives_the_moments_of_the_mixture() {
    let data = Mixture::toy();
    let t_eps = 1e-3;
    let n = 4000;
    for sde in [SdeConfig::default(), SdeConfig::all_defaults()[2]] {
        let prior = prior(&sde, &data, t_eps);
        let truth = data.at(prior.sde(), t_eps).moments();
        let mut rng = Rng::new(11);
        for solver in Solver::ALL {
            let (steps, grid) = match solver {
                Solver::EulerMaruyama => (500, Grid::Uniform),
                Solver::Ddim => (400, Grid::LogSnr),
                Solver::Ancestral | Solver::PredictorCorrector => (200, Grid::LogSnr),
                _ => (50, Grid::LogSnr),
            };
            let config = SolverConfig { solver, steps, grid, snr: 0.03, tolerance: 1e-4, ..SolverConfig::default() };
            let z1 = prior.sample_base(n, 1.0, DType::F32, &Device::Cpu, &mut rng).unwrap();
            let (z0, nfe) = sample(&prior, &z1, &config, &mut rng, &mut |_| Ok(())).unwrap();
            assert!(nfe >= 20);
            let points = points(&z0);
            let mean = [0, 1].map(|i| points.iter().map(|p| p[i]).sum::<f64>() / n as f64);
            let check = |what: &str, value: &dyn Fn(&[f64; 2]) -> f64, truth: f64| {
                let values: Vec<f64> = points.iter().map(value).collect();
                let average = values.iter().sum::<f64>() / n as f64;
                let spread = values.iter().map(|v| (v - average).powi(2)).sum::<f64>() / (n * (n - 1)) as f64;
                let off = (average - truth) / spread.sqrt();
                assert!(
                    off.abs() < 3.0,
                    "{} {solver} {what}: {average} instead of {truth}, {off:.1} errors",
                    sde.name()
                );
            };
            check("mean x", &|p| p[0], truth[0]);
            check("mean y", &|p| p[1], truth[1]);
            check("variance x", &|p| (p[0] - mean[0]).powi(2), truth[2]);
            check("variance y", &|p| (p[1] - mean[1]).powi(2), truth[3]);
            check("covariance", &|p| (p[0] - mean[0]) * (p[1] - mean[1]), truth[4]);
        }
    }
}

#[test]
fn the_ode_likelihood_is_the_density() {
    let data = Mixture::toy();
    for config in SdeConfig::all_defaults().into_iter().take(3) {
        let prior = prior(&config, &data, 1e-5);
        let x = data.draw(200, &mut Rng::new(2));
        let truth: Vec<f64> = x.iter().map(|x| data.log_density(*x)).collect();
        let options = OdeOptions { tolerance: 1e-6, trace: Trace::Exact, ..OdeOptions::default() };
        let found = ode_log_prob(&prior, &latents(&x), &options, &mut Rng::new(3)).unwrap();
        let found: Vec<f64> = found.log_p.to_vec1().unwrap();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let worst = found.iter().zip(&truth).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let off = (mean(&found) - mean(&truth)).abs();
        eprintln!("{}: mean off by {off:.1e} nats, worst {worst:.1e}", config.name());
        // The densest component has variance 0.02, so that the noise at the cut-off is seen by single points.
        assert!(off < 0.02 && worst < 0.05, "{} {off} {worst}", config.name());
    }
}

#[test]
fn callbacks_see_each_step_and_can_stop() {
    let prior = prior(&SdeConfig::default(), &Mixture::toy(), 1e-3);
    let z1 = prior.sample_base(3, 0.5, DType::F32, &Device::Cpu, &mut Rng::new(1)).unwrap();
    let config = SolverConfig { solver: Solver::Heun, steps: 5, ..SolverConfig::default() };
    let mut seen = Vec::new();
    let mut watch = |step: &lsgm_prior::solvers::Step<'_>| {
        seen.push((step.index, step.steps, step.nfe));
        Ok(())
    };
    let (_, nfe) = sample(&prior, &z1, &config, &mut Rng::new(0), &mut watch).unwrap();
    assert_eq!(nfe, 10);
    assert_eq!(seen, (1..=5).map(|i| (i, Some(5), 2 * i)).collect::<Vec<_>>());
    let mut stop = |_: &lsgm_prior::solvers::Step<'_>| Err(lsgm_core::Error::contract("test", "enough"));
    assert!(sample(&prior, &z1, &config, &mut Rng::new(0), &mut stop).is_err());
}

const STOCHASTIC: [Solver; 4] =
    [Solver::EulerMaruyama, Solver::Ancestral, Solver::PredictorCorrector, Solver::DpmSolverSde2m];

/// Of Gaussian data the variance at the end is known; few steps leave too little of it.
#[test]
fn the_second_order_of_the_stochastic_dpm_solver_pays() {
    let data = Mixture::gaussian(0.2);
    let prior = prior(&SdeConfig::default(), &data, 1e-3);
    let truth = data.at(prior.sde(), 1e-3).moments()[2];
    let z1 = Rng::new(1).normal_tensor((40_000, 2, 1), DType::F64, &Device::Cpu).unwrap();
    let error = |solver, steps| {
        let config = SolverConfig { solver, steps, ..SolverConfig::default() };
        let points = points(&run(&prior, &z1, &config, 2).0);
        let n = points.len() as f64;
        let mean = points.iter().map(|p| p[0]).sum::<f64>() / n;
        (points.iter().map(|p| (p[0] - mean).powi(2)).sum::<f64>() / n - truth).abs() / truth
    };
    for steps in [10, 20] {
        let (first, second) = (error(Solver::Ancestral, steps), error(Solver::DpmSolverSde2m, steps));
        eprintln!("{steps} steps: {first:.3} {second:.3}");
        assert!(second < 0.5 * first, "{steps}: {first} {second}");
    }
}

#[test]
fn stochastic_samplers_follow_the_generator() {
    let prior = prior(&SdeConfig::default(), &Mixture::toy(), 1e-3);
    let z1 = prior.sample_base(2, 1.0, DType::F32, &Device::Cpu, &mut Rng::new(1)).unwrap();
    for solver in Solver::ALL {
        let config = SolverConfig { solver, steps: 10, tolerance: 1e-3, ..SolverConfig::default() };
        let runs: Vec<_> = [4, 4, 5].map(|seed| points(&run(&prior, &z1, &config, seed).0)).into();
        assert_eq!(runs[0], runs[1]);
        let noisy = STOCHASTIC.contains(&solver);
        assert_eq!(runs[0] != runs[2], noisy, "{solver}");
        assert_eq!(solver.name().parse::<Solver>().unwrap(), solver);
        assert_eq!(serde_json::to_string(&solver).unwrap(), format!("\"{solver}\""));
    }
    assert!("rk54".parse::<Solver>().unwrap_err().contains("rk45, euler-maruyama"));
}

/// A network that returns nonsense beyond a time.
struct Broken;

impl ScoreNetwork for Broken {
    fn forward(&self, z: &Tensor, _: &Tensor, _: &mut Pass<'_>) -> Result<Tensor> {
        Ok((z * f64::NAN)?)
    }
}

#[test]
fn options_out_of_range_and_divergence_are_errors_that_help() {
    let sde = Sde::new(&SdeConfig::default()).unwrap();
    let broken = Prior::with_network(sde, LatentShape::line(2, 1), 1e-3, None, Box::new(Broken)).unwrap();
    let z1 = Tensor::ones((2, 2, 1), DType::F32, &Device::Cpu).unwrap();
    for solver in Solver::ALL {
        let config = SolverConfig { solver, ..SolverConfig::default() };
        let error = sample(&broken, &z1, &config, &mut Rng::new(0), &mut |_| Ok(())).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("not finite") && message.contains("raise t_eps"), "{solver}: {message}");
        let lsgm_core::Error::Other(inner) = error else { panic!("{solver}") };
        assert!(matches!(inner.downcast_ref::<SolverError>(), Some(SolverError::NotFinite { .. })));
    }
    let refused = [
        (SolverConfig { tolerance: 0.0, ..SolverConfig::default() }, "sample.tolerance"),
        (SolverConfig { solver: Solver::Heun, steps: 0, ..SolverConfig::default() }, "sample.steps"),
        (SolverConfig { t_eps: Some(1.0), ..SolverConfig::default() }, "sample.t_eps"),
        (SolverConfig { t_eps: Some(0.0), ..SolverConfig::default() }, "sample.t_eps"),
        (SolverConfig { solver: Solver::PredictorCorrector, snr: 0.0, ..SolverConfig::default() }, "sample.snr"),
    ];
    for (config, key) in refused {
        let message = config.validate("sample").unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

/// Of Gaussian data under a Gaussian observation of one coordinate the posterior is known. Guidance is close to it, and
/// leaves the other coordinate alone.
#[test]
fn guidance_moves_what_the_condition_is_about_and_nothing_else() {
    let data = Mixture::gaussian(0.2);
    let prior = prior(&SdeConfig::default(), &data, 1e-3);
    let times = Grid::LogSnr.times(prior.sde(), 100, 1e-3).unwrap();
    let z1 = Rng::new(1).normal_tensor((2000, 2, 1), DType::F64, &Device::Cpu).unwrap();
    let (observed, variance) = (1.5, 0.4);
    let mut condition = |z: &Tensor| -> Result<Tensor> {
        Ok(((z.narrow(1, 0, 1)?.flatten_all()? - observed)?.sqr()? * (-0.5 / variance))?)
    };
    let mut means = |strength: f64| {
        let mut rng = Rng::new(2);
        let (z, nfe) =
            guided_ancestral(&prior, &z1, &times, &mut rng, &mut |_| Ok(()), &mut condition, strength).unwrap();
        assert_eq!(nfe, 100);
        let points = points(&z);
        [0, 1].map(|i| points.iter().map(|p| p[i]).sum::<f64>() / points.len() as f64)
    };
    let (free, guided) = (means(0.0), means(1.0));
    assert!((free[0] - 0.3).abs() < 0.05 && (free[1] + 0.2).abs() < 0.05, "{free:?}");
    // The exact mean is 0.3 + 1.2 / 3; guidance takes the prediction for certain, and goes a little further.
    assert!((0.65..1.0).contains(&guided[0]) && (guided[1] + 0.2).abs() < 0.05, "{guided:?}");
    let refused = guided_ancestral(&prior, &z1, &times, &mut Rng::new(0), &mut |_| Ok(()), &mut condition, -1.0);
    assert!(refused.unwrap_err().to_string().contains("guidance"));
}
