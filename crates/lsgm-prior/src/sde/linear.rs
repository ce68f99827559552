/// `β(t)` that grows linearly from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LinearBeta {
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl LinearBeta {
    /// `β(t)`.
    pub(crate) fn at(self, t: f64) -> f64 {
        self.start + (self.end - self.start) * t
    }

    /// `∫_0^t β`.
    pub(crate) fn integral(self, t: f64) -> f64 {
        self.start * t + 0.5 * (self.end - self.start) * t * t
    }

    /// The `t` at which the integral takes a value; the root is written so that small values lose no digits.
    pub(crate) fn inverse_integral(self, integral: f64) -> f64 {
        let discriminant = self.start * self.start + 2.0 * (self.end - self.start) * integral;
        2.0 * integral / (self.start + discriminant.max(0.0).sqrt())
    }

    /// `exp(-∫β) ∝ exp(-(rate · (t + shift))²)`: the rate and the shift.
    pub(crate) fn gaussian(self) -> (f64, f64) {
        let slope = self.end - self.start;
        ((0.5 * slope).sqrt(), self.start / slope)
    }
}
