use candle_core::{DType, Device, Tensor};
use lsgm_core::{Error, Likelihood, Result, Rng};
use lsgm_nn::ops::{categorical_log_prob, softmax};

/// Classes of 8 bits.
pub(crate) const CLASSES: usize = 256;

const MU: f64 = 255.0;

/// The class of a sample in [-1, 1]: its companded value `sign(x) · ln(1 + µ|x|) / ln(1 + µ)`, rounded to 256 steps.
pub(crate) fn class_of(x: f64) -> u32 {
    let companded = x.signum() * (MU * x.abs().min(1.0)).ln_1p() / MU.ln_1p();
    ((companded + 1.0) / 2.0 * MU).round().clamp(0.0, MU) as u32
}

/// [`class_of`] every sample, on the device of the samples.
fn classes_of(x: &Tensor) -> Result<Tensor> {
    let x = x.detach().to_dtype(DType::F64)?.clamp(-1.0, 1.0)?;
    let companded = (x.sign()? * (x.abs()?.affine(MU, 1.0)?.log()? / MU.ln_1p())?)?;
    Ok(companded.affine(MU / 2.0, MU / 2.0)?.round()?.to_dtype(DType::U32)?)
}

/// The sample at the place of a class, or between two.
pub(crate) fn expand(class: f64) -> f64 {
    let companded: f64 = 2.0 * class / MU - 1.0;
    companded.signum() * ((companded.abs() * MU.ln_1p()).exp_m1() / MU)
}

/// Independent samples, each from a categorical distribution over the 256 classes of µ-law companding.
///
/// Its probabilities are of classes: the bound is one of the companded clip. Means and draws are the samples that the
/// classes stand for.
#[derive(Debug, Clone)]
pub struct MuLaw {
    logits: Tensor,
}

impl MuLaw {
    /// From logits `[B, L, 256]`.
    ///
    /// # Errors
    /// Another shape.
    pub fn new(logits: Tensor) -> Result<Self> {
        match logits.dims() {
            [_, _, CLASSES] => Ok(Self { logits }),
            dims => Err(Error::contract("decoder", format!("logits {dims:?} instead of [B, L, {CLASSES}]"))),
        }
    }
}

impl Likelihood for MuLaw {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, length) = x.dims3()?;
        let classes = classes_of(x)?.reshape((batch, length))?;
        Ok(categorical_log_prob(&self.logits, &classes)?.sum(1)?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        let (batch, length, _) = self.logits.dims3()?;
        let logits = self.logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let draw = |row: &[f32]| match temperature <= 0.0 {
            true => mode(row),
            false => choose(row, temperature as f32, rng.uniform()),
        };
        let drawn: Vec<f32> = logits.chunks_exact(CLASSES).map(draw).map(|c| expand(c as f64) as f32).collect();
        Ok(Tensor::from_vec(drawn, (batch, 1, length), self.logits.device())?.to_dtype(self.logits.dtype())?)
    }

    fn mean(&self) -> Result<Tensor> {
        let values: Vec<f32> = (0..CLASSES).map(|c| expand(c as f64) as f32).collect();
        let values = Tensor::from_vec(values, (1, 1, CLASSES), self.logits.device())?.to_dtype(self.logits.dtype())?;
        Ok(softmax(&self.logits)?.broadcast_mul(&values)?.sum(2)?.unsqueeze(1)?)
    }
}

fn mode(row: &[f32]) -> usize {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class)
}

/// The class at which the distribution function passes `u`.
fn choose(row: &[f32], temperature: f32, u: f64) -> usize {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: &f32| f64::from(((l - top) / temperature).exp());
    let mut left = u * row.iter().map(weight).sum::<f64>();
    let passes = |l: &f32| {
        left -= weight(l);
        left < 0.0
    };
    row.iter().position(passes).unwrap_or(row.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companding_is_undone_and_covers_the_range() {
        for class in 0..CLASSES as u32 {
            assert_eq!(class_of(expand(f64::from(class))), class);
        }
        assert_eq!((class_of(-1.0), class_of(32_767.0 / 32_768.0), class_of(7.0)), (0, 255, 255));
        let all: std::collections::BTreeSet<u32> =
            (-32_768..32_768).map(|v| class_of(f64::from(v) / 32_768.0)).collect();
        assert_eq!(all.len(), CLASSES);
        let samples: Vec<f64> = (-32_768..32_768).map(|v| f64::from(v) / 32_768.0).chain([7.0, -2.0]).collect();
        let expected: Vec<u32> = samples.iter().map(|v| class_of(*v)).collect();
        let classes = classes_of(&Tensor::new(samples, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(classes.to_vec1::<u32>().unwrap(), expected);
    }

    #[test]
    fn probabilities_frequencies_mean_and_mode_agree() {
        let mut row = vec![-30.0f32; CLASSES];
        (row[100], row[200]) = (0.0, 1.0);
        let n = 20_000;
        let logits =
            Tensor::new(row, &Device::Cpu).unwrap().broadcast_as((1, n, CLASSES)).unwrap().contiguous().unwrap();
        let p = MuLaw::new(logits).unwrap();
        let x = Tensor::full(expand(200.0) as f32, (1, 1, n), &Device::Cpu).unwrap();
        let q = (p.log_prob(&x).unwrap().to_vec1::<f32>().unwrap()[0] / n as f32).exp();
        assert!((q - 0.731_06).abs() < 1e-3, "{q}");
        let drawn = p.sample(1.0, &mut Rng::new(2)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let share = drawn.iter().filter(|v| **v > 0.0).count() as f32 / n as f32;
        assert!((share - q).abs() < 0.013, "{share}");
        let mean = p.mean().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let expected = 0.731_06 * expand(200.0) + 0.268_94 * expand(100.0);
        assert!((f64::from(mean) - expected).abs() < 1e-4, "{mean} {expected}");
        let cold = p.sample(0.0, &mut Rng::new(3)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(cold.iter().all(|v| (f64::from(*v) - expand(200.0)).abs() < 1e-6));
        assert!(MuLaw::new(Tensor::zeros((1, 2, 255), DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
