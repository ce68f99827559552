//! The singular vectors of many matrices at a time.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Result, upload};

use crate::kernels::device::{Element, Launch, SPECTRAL, THREADS, address, fresh};

/// The left and the right singular vector of each contiguous matrix, from given starts (`f32`).
pub(crate) fn power_iterations(matrices: &[Tensor], starts: &[Tensor], iterations: usize) -> Result<Vec<[Tensor; 2]>> {
    let Some(first) = matrices.first() else { return Ok(Vec::new()) };
    let device = first.device();
    let (mut numbers, mut vectors) = (Vec::with_capacity(6 * matrices.len()), Vec::with_capacity(matrices.len()));
    for (matrix, start) in matrices.iter().zip(starts) {
        let (rows, columns) = matrix.dims2()?;
        let pair = [fresh(rows, DType::F32, device)?, fresh(columns, DType::F32, device)?];
        let places = [address(matrix)?, address(start)?, address(&pair[0])?, address(&pair[1])?];
        numbers.extend(places.map(u64::cast_signed));
        numbers.extend([rows as i64, columns as i64]);
        vectors.push(pair);
    }
    let pieces = upload(&Tensor::new(numbers, &Device::Cpu)?, device)?;
    Launch::new(&SPECTRAL, "power_iteration", Element::F32)
        .addresses(&[address(&pieces)?])
        .sizes([iterations])
        .run(device, matrices.len() * THREADS as usize)?;
    Ok(vectors)
}
