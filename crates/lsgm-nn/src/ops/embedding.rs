//! Rows of a table by index.

use candle_core::{DType, Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::{Float, uninit};

/// Rows `ids: [..]` (`u32`) of `table: [V, D]`: `[.., D]`.
///
/// # Errors
/// A table that is not a matrix, ids of another type, or an id of `V` or more.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let &[rows, _] = table.dims() else {
        return Err(fault("embedding", format!("table {:?} must be [V, D]", table.dims())));
    };
    if !has_kernel(table) {
        return composed::embedding(table, ids);
    }
    let leading = ids.dims().to_vec();
    let ids = checked_ids("embedding", ids, rows)?;
    apply1(Embedding { ids, leading }, [table])
}

/// The ids as numbers, each below `limit`.
pub(super) fn checked_ids(op: &str, ids: &Tensor, limit: usize) -> Result<Vec<u32>> {
    if ids.dtype() != DType::U32 || ids.elem_count() == 0 {
        return Err(fault(op, format!("ids must be u32 and not empty, not {:?} {:?}", ids.dtype(), ids.dims())));
    }
    let numbers = ids.flatten_all()?.to_vec1::<u32>()?;
    match numbers.iter().find(|id| **id as usize >= limit) {
        Some(id) => Err(fault(op, format!("id {id} is out of range: there are {limit}"))),
        None => Ok(numbers),
    }
}

struct Embedding {
    ids: Vec<u32>,
    leading: Vec<usize>,
}

impl Op<1> for Embedding {
    const NAME: &'static str = "embedding";

    fn forward<T: Float>(&self, [table]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let width = table.dims[1];
        let mut y = uninit(self.ids.len() * width);
        for (to, id) in y.chunks_exact_mut(width).zip(&self.ids) {
            to.copy_from_slice(&table.data[*id as usize * width..][..width]);
        }
        let mut dims = self.leading.clone();
        dims.push(width);
        (y, dims.into())
    }

    fn backward<T: Float>(
        &self,
        [table]: [View<'_, T>; 1],
        _: View<'_, T>,
        gy: &[T],
        _: [bool; 1],
    ) -> [Option<Vec<T>>; 1] {
        let width = table.dims[1];
        let mut d = vec![T::ZERO; table.data.len()];
        for (g, id) in gy.chunks_exact(width).zip(&self.ids) {
            let to = &mut d[*id as usize * width..][..width];
            to.iter_mut().zip(g).for_each(|(t, g)| *t += *g);
        }
        [Some(d)]
    }
}
