//! Which components of a mixture rows of features come from, and what they are to be expected to be.

use candle_core::{D, DType, Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply2, apply3, fault, has_kernel, keep};
use crate::kernels::Float;
use crate::kernels::components::{Sizes, Targets, expected, expected_gradients, shares, shares_gradients};

/// `softmax(features · factorsᵀ)`, the shares of the components in rows `features` `[B, L, W]`, for the `factors`
/// `[B, K, W]` of each item, which the logarithms of the shares are linear in: `[B, L, K]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn component_shares(features: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let sizes = sizes("component_shares", features, factors)?;
    if !has_kernel(features) {
        return composed::component_shares(features, factors);
    }
    apply2(Shares(sizes), [features, factors])
}

/// `p · factors` for `p = softmax(features · factorsᵀ + context)`, with `features` `[B, L, W]`, `factors` `[B, K, W]` and
/// `context` `[B, L, K]`: `[B, L, W]`.
///
/// With `targets`, other features `[B, L, W]` of the same rows and factors `[K, W]` of the components, also the cross
/// entropy `-Σ r ln p` in nats, `[B, L]`, where `r` is the softmax of their product. It has a gradient with respect to
/// `context` alone.
///
/// # Errors
/// Shapes that do not fit.
pub fn expected_factors(
    features: &Tensor,
    factors: &Tensor,
    context: &Tensor,
    targets: Option<[&Tensor; 2]>,
) -> Result<(Tensor, Option<Tensor>)> {
    let op = "expected_factors";
    let s = sizes(op, features, factors)?;
    let fitting = format!("beside features {:?} and factors {:?}", features.dims(), factors.dims());
    if context.dims() != [features.dim(0)?, s.rows, s.components] {
        return Err(fault(op, format!("context {:?} must be [B, L, K] {fitting}", context.dims())));
    }
    if let Some([others, shared]) = targets
        && (others.dims() != features.dims() || shared.dims() != [s.components, s.width])
    {
        let (others, shared) = (others.dims(), shared.dims());
        return Err(fault(op, format!("targets {others:?} and {shared:?} must be [B, L, W] and [K, W] {fitting}")));
    }
    if !has_kernel(features) {
        return composed::expected_factors(features, factors, context, targets);
    }
    let wide = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let told = targets.map(|[features, factors]| {
        Ok::<_, candle_core::Error>(Targets { features: wide(features)?, factors: wide(factors)? })
    });
    let told = told.transpose()?;
    let both = apply3(Expected { sizes: s, targets: told }, [features, factors, context])?;
    if targets.is_none() {
        return Ok((both, None));
    }
    let cross_entropy = both.narrow(D::Minus1, s.width, 1)?.squeeze(D::Minus1)?;
    Ok((both.narrow(D::Minus1, 0, s.width)?, Some(cross_entropy)))
}

fn sizes(op: &str, features: &Tensor, factors: &Tensor) -> Result<Sizes> {
    match (features.dims(), factors.dims()) {
        ([batch, rows, width], [items, components, same]) if batch == items && width == same => {
            Ok(Sizes { rows: *rows, components: *components, width: *width })
        }
        (features, factors) => {
            Err(fault(op, format!("features {features:?} and factors {factors:?} must be [B, L, W] and [B, K, W]")))
        }
    }
}

struct Shares(Sizes);

impl Op<2> for Shares {
    const NAME: &'static str = "component_shares";

    fn forward<T: Float>(&self, [features, factors]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        let y = shares(&self.0, features.data, factors.data);
        (y, (features.dims[0], self.0.rows, self.0.components).into())
    }

    fn backward<T: Float>(
        &self,
        [features, factors]: [View<'_, T>; 2],
        y: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        keep(needed, shares_gradients(&self.0, [features.data, factors.data], y.data, gy))
    }
}

struct Expected {
    sizes: Sizes,
    targets: Option<Targets<f64>>,
}

impl Expected {
    fn targets<T: Float>(&self) -> Option<Targets<T>> {
        let narrow = |values: &[f64]| values.iter().map(|v| T::of(*v)).collect();
        self.targets.as_ref().map(|t| Targets { features: narrow(&t.features), factors: narrow(&t.factors) })
    }
}

impl Op<3> for Expected {
    const NAME: &'static str = "expected_factors";

    fn forward<T: Float>(&self, inputs: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let y = expected(&self.sizes, inputs.map(|v| v.data), self.targets().as_ref());
        let columns = self.sizes.width + usize::from(self.targets.is_some());
        (y, (inputs[0].dims[0], self.sizes.rows, columns).into())
    }

    fn backward<T: Float>(
        &self,
        inputs: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        keep(needed, expected_gradients(&self.sizes, inputs.map(|v| v.data), self.targets().as_ref(), gy))
    }
}
