/// A variance that grows geometrically from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GeometricVariance {
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl GeometricVariance {
    /// `min · (max / min)^t`.
    pub(crate) fn at(self, t: f64) -> f64 {
        self.min * (t * self.log_ratio()).exp()
    }

    /// The time derivative of the variance.
    pub(crate) fn rate(self, t: f64) -> f64 {
        self.at(t) * self.log_ratio()
    }

    /// The `t` at which the variance takes a value.
    pub(crate) fn inverse(self, variance: f64) -> f64 {
        (variance / self.min).ln() / self.log_ratio()
    }

    fn log_ratio(self) -> f64 {
        (self.max / self.min).ln()
    }
}
