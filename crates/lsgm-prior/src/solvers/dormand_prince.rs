//! The Dormand–Prince 5(4) pair with the error norm, the first step and the step control of scipy's `RK45`, on tensors.

use candle_core::Tensor;
use lsgm_core::{Error, Result};

use super::SolverError;

/// Options of the adaptive solver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rk45Options {
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// Most steps, accepted and rejected together.
    pub max_steps: usize,
}

impl Default for Rk45Options {
    fn default() -> Self {
        Self::with_tolerance(1e-5)
    }
}

impl Rk45Options {
    /// The same relative and absolute tolerance.
    pub fn with_tolerance(tolerance: f64) -> Self {
        Self { rtol: tolerance, atol: tolerance, max_steps: 10_000 }
    }

    /// # Errors
    /// [`Error::Config`] for tolerances that are not positive.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("rtol", self.rtol), ("atol", self.atol)] {
            if !(value > 0.0 && value.is_finite()) {
                let message = format!("the solver's tolerance must be above 0, not {value}: 1e-5 is usual");
                return Err(Error::config(format!("tolerance ({key})"), message));
            }
        }
        if self.max_steps == 0 {
            return Err(Error::config("max_steps", "the solver needs at least 1 step"));
        }
        Ok(())
    }
}

/// The state of an ordinary differential equation: tensors that are solved together. Kept in `f64`, so that small
/// tolerances are not lost in rounding.
pub(crate) type State = Vec<Tensor>;

/// What a solve returns.
#[derive(Debug)]
pub(crate) struct Solution {
    pub(crate) y: State,
    pub(crate) nfe: usize,
}

const C: [f64; 5] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0];
const A: [&[f64]; 5] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
];
const B: [f64; 6] = [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0];
const E: [f64; 7] =
    [-71.0 / 57600.0, 0.0, 71.0 / 16695.0, -71.0 / 1920.0, 17253.0 / 339200.0, -22.0 / 525.0, 1.0 / 40.0];

const SAFETY: f64 = 0.9;
const MIN_FACTOR: f64 = 0.2;
const MAX_FACTOR: f64 = 10.0;
/// Order of the error estimate.
const ERROR_ORDER: f64 = 4.0;

type Derivative<'a> = &'a mut dyn FnMut(f64, &State) -> Result<State>;

/// Integrate `dy/dt = derivative(t, y)` from `from` to `to`, in either direction. `on_step` sees each accepted step:
/// time, state, evaluations so far.
pub(crate) fn integrate(
    derivative: Derivative<'_>,
    y: State,
    from: f64,
    to: f64,
    options: &Rk45Options,
    on_step: &mut dyn FnMut(f64, &State, usize) -> Result<()>,
) -> Result<Solution> {
    options.validate()?;
    let mut solver = Solver {
        nfe: 0,
        direction: if to >= from { 1.0 } else { -1.0 },
        rtol: options.rtol.max(100.0 * f64::EPSILON),
        atol: options.atol,
        to,
    };
    let (mut t, mut y) = (from, y);
    let mut slope = solver.evaluate(derivative, t, &y)?;
    let mut step = solver.first_step(derivative, t, &y, &slope)?;
    let mut attempts = 0;
    while solver.direction * (t - to) < 0.0 {
        let smallest = smallest_step(t, solver.direction);
        step = step.max(smallest);
        let mut rejected = false;
        loop {
            if step < smallest {
                return Err(SolverError::StepSizeUnderflow { t, nfe: solver.nfe }.into());
            }
            if attempts == options.max_steps {
                return Err(SolverError::TooManySteps { t, steps: attempts }.into());
            }
            attempts += 1;
            let mut next = t + step * solver.direction;
            if solver.direction * (next - to) > 0.0 {
                next = to;
            }
            let h = next - t;
            let trial = solver.trial(derivative, t, &y, &slope, h)?;
            if !trial.error.is_finite() {
                return Err(SolverError::NotFinite { t, nfe: solver.nfe }.into());
            }
            let factor = SAFETY * trial.error.powf(-1.0 / (ERROR_ORDER + 1.0));
            if trial.error < 1.0 {
                let factor = if trial.error == 0.0 { MAX_FACTOR } else { factor.min(MAX_FACTOR) };
                step = h.abs() * if rejected { factor.min(1.0) } else { factor };
                (t, y, slope) = (next, trial.y, trial.slope);
                break;
            }
            step = h.abs() * factor.max(MIN_FACTOR);
            rejected = true;
        }
        on_step(t, &y, solver.nfe)?;
    }
    Ok(Solution { y, nfe: solver.nfe })
}

struct Solver {
    nfe: usize,
    direction: f64,
    rtol: f64,
    atol: f64,
    to: f64,
}

/// One attempted step.
struct Trial {
    y: State,
    slope: State,
    error: f64,
}

impl Solver {
    fn evaluate(&mut self, derivative: Derivative<'_>, t: f64, y: &State) -> Result<State> {
        self.nfe += 1;
        derivative(t, y)
    }

    /// Hairer, Nørsett and Wanner, "Solving ordinary differential equations I", section II.4, as scipy has it.
    fn first_step(&mut self, derivative: Derivative<'_>, t: f64, y: &State, slope: &State) -> Result<f64> {
        let interval = (self.to - t).abs();
        if interval == 0.0 {
            return Ok(0.0);
        }
        let scale: State =
            y.iter().map(|y| y.abs()?.affine(self.rtol, self.atol)).collect::<candle_core::Result<_>>()?;
        let d0 = norm(y, &scale)?;
        let d1 = norm(slope, &scale)?;
        let h0 = if d0 < 1e-5 || d1 < 1e-5 { 1e-6 } else { 0.01 * d0 / d1 };
        let h0 = h0.min(interval);
        let y1 = combine(y, h0 * self.direction, &[slope], &[1.0])?;
        let slope1 = self.evaluate(derivative, t + h0 * self.direction, &y1)?;
        let d2 = norm(&combine(&slope1, -1.0, &[slope], &[1.0])?, &scale)? / h0;
        if !(d1.is_finite() && d2.is_finite()) {
            return Err(SolverError::NotFinite { t, nfe: self.nfe }.into());
        }
        let steepest = d1.max(d2);
        let h1 =
            if steepest <= 1e-15 { (h0 * 1e-3).max(1e-6) } else { (0.01 / steepest).powf(1.0 / (ERROR_ORDER + 1.0)) };
        Ok((100.0 * h0).min(h1).min(interval))
    }

    fn trial(&mut self, derivative: Derivative<'_>, t: f64, y: &State, slope: &State, h: f64) -> Result<Trial> {
        let mut stages = vec![slope.clone()];
        for (c, a) in C.iter().zip(A) {
            let refs: Vec<&State> = stages.iter().collect();
            let inner = combine(y, h, &refs, a)?;
            stages.push(self.evaluate(derivative, t + c * h, &inner)?);
        }
        let next = combine(y, h, &stages.iter().collect::<Vec<_>>(), &B)?;
        let last = self.evaluate(derivative, t + h, &next)?;
        stages.push(last.clone());
        let zero: State = y.iter().map(Tensor::zeros_like).collect::<candle_core::Result<_>>()?;
        let error = combine(&zero, h, &stages.iter().collect::<Vec<_>>(), &E)?;
        let scale: State = y
            .iter()
            .zip(&next)
            .map(|(a, b)| a.abs()?.maximum(&b.abs()?)?.affine(self.rtol, self.atol))
            .collect::<candle_core::Result<_>>()?;
        let error = norm(&error, &scale)?;
        Ok(Trial { y: next, slope: last, error })
    }
}

/// Ten times the spacing of floating-point numbers at `t` in the direction of the solve.
fn smallest_step(t: f64, direction: f64) -> f64 {
    let next = if direction > 0.0 { t.next_up() } else { t.next_down() };
    10.0 * (next - t).abs()
}

/// `y + h · Σ weight · stage`.
fn combine(y: &State, h: f64, stages: &[&State], weights: &[f64]) -> Result<State> {
    y.iter()
        .enumerate()
        .map(|(i, y)| {
            let mut total = y.clone();
            for (stage, weight) in stages.iter().zip(weights).filter(|(_, w)| **w != 0.0) {
                if let Some(slope) = stage.get(i) {
                    total = (total + (slope * (h * weight))?)?;
                }
            }
            Ok(total)
        })
        .collect()
}

/// Root mean square of `x / scale` over every element of the state: the only number that is read back from the device.
fn norm(x: &State, scale: &State) -> Result<f64> {
    let (mut total, mut count) = (0.0, 0);
    for (x, scale) in x.iter().zip(scale) {
        total += (x / scale)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        count += x.elem_count();
    }
    Ok((total / count.max(1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn solve(
        derivative: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>,
        y: &[f64],
        interval: (f64, f64),
        tolerance: f64,
    ) -> (Vec<f64>, usize) {
        let y = vec![Tensor::new(y, &Device::Cpu).unwrap()];
        let mut derivative = |_: f64, y: &State| Ok(vec![derivative(&y[0])?]);
        let options = Rk45Options::with_tolerance(tolerance);
        let (from, to) = interval;
        let found = integrate(&mut derivative, y, from, to, &options, &mut |_, _, _| Ok(())).unwrap();
        (found.y[0].to_vec1().unwrap(), found.nfe)
    }

    /// End points and evaluation counts of `scipy.integrate.solve_ivp` for `dy/dt = rate · y`, `y(0) = [1, 2]`.
    #[test]
    fn exponentials_agree_with_scipy() {
        let expected = [
            (-1.0, 1e-5, 26, 0.3678812865527138),
            (-1.0, 1e-9, 98, 0.3678794413303641),
            (2.0, 1e-7, 86, 7.389056461561426),
        ];
        for (rate, tolerance, nfe, end) in expected {
            let found = solve(&|y| y * rate, &[1.0, 2.0], (0.0, 1.0), tolerance);
            assert_eq!(found.1, nfe, "{rate} {tolerance}");
            assert!((found.0[0] / end - 1.0).abs() < 1e-12, "{rate} {tolerance} {}", found.0[0]);
        }
    }

    /// The same for the van der Pol oscillator with mu = 5 from (2, 0), which makes steps fail, in both directions.
    #[test]
    fn a_stiff_oscillator_agrees_with_scipy() {
        let oscillator = |y: &Tensor| {
            let v = y.to_vec1::<f64>()?;
            Tensor::new(&[v[1], 5.0 * (1.0 - v[0] * v[0]) * v[1] - v[0]], &Device::Cpu)
        };
        let expected = [
            ((0.0, 10.0), 704, [-1.1587008447625795, 0.4304707227044449]),
            ((10.0, 0.0), 434, [-0.10240278538317932, -0.021646426003634308]),
        ];
        for (interval, nfe, end) in expected {
            let found = solve(&oscillator, &[2.0, 0.0], interval, 1e-6);
            assert_eq!(found.1, nfe);
            assert!((found.0[0] - end[0]).abs() < 1e-9 && (found.0[1] - end[1]).abs() < 1e-9, "{:?}", found.0);
        }
    }

    #[test]
    fn a_pole_underflows_and_says_what_to_do() {
        let y = vec![Tensor::new(&[1.0f64], &Device::Cpu).unwrap()];
        let mut derivative = |_: f64, y: &State| Ok(vec![y[0].sqr()?]);
        let found = integrate(&mut derivative, y, 0.0, 2.0, &Rk45Options::default(), &mut |_, _, _| Ok(()));
        let message = found.unwrap_err().to_string();
        assert!(message.contains("loosen the tolerance") || message.contains("diverged"), "{message}");
    }

    #[test]
    fn tolerances_must_be_positive() {
        assert!(Rk45Options::with_tolerance(0.0).validate().is_err());
        assert!(Rk45Options { atol: f64::NAN, ..Rk45Options::default() }.validate().is_err());
    }
}
