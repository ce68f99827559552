/// Linear warm-up, then cosine decay, both over shares of the stage's budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    /// Share of the stage over which the factor rises from 0 to 1.
    pub(crate) warmup: f64,
    /// Factor at the end.
    pub(crate) final_ratio: f64,
}

impl Schedule {
    /// The factor on the learning rate at a share of the stage in [0, 1].
    pub(crate) fn factor(&self, progress: f64) -> f64 {
        if progress < self.warmup {
            return (progress / self.warmup).max(1e-3);
        }
        let decay = (progress - self.warmup) / (1.0 - self.warmup).max(f64::EPSILON);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * decay.min(1.0)).cos());
        self.final_ratio + (1.0 - self.final_ratio) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_final_ratio() {
        let s = Schedule { warmup: 0.1, final_ratio: 0.01 };
        assert!(s.factor(0.0) > 0.0 && s.factor(0.0) < 0.01);
        assert!((s.factor(0.05) - 0.5).abs() < 1e-12);
        assert!((s.factor(0.1) - 1.0).abs() < 1e-12);
        assert!((s.factor(0.55) - 0.505).abs() < 1e-12);
        assert!((s.factor(1.0) - 0.01).abs() < 1e-12);
    }
}
