//! Computations on contiguous CPU slices: plain loops that vectorise, matrix products, and their parallel partition; beside
//! them the kernels for GPUs ([`device`]).
//!
//! Work is cut into pieces whose size depends on the shapes alone, and partial sums are added in the order of the
//! pieces, so that results do not depend on the number of threads.
#![allow(unsafe_code)]

mod float;
mod gemm;
mod instruction_set;
mod simd;
mod vector;

pub(crate) mod attention;
pub(crate) mod bilinear;
pub(crate) mod components;
pub(crate) mod conv;
#[cfg(feature = "cudnn")]
pub(crate) mod cudnn;
pub mod device;
pub(crate) mod diffused_gaussians;
pub(crate) mod gate;
pub(crate) mod linear;
pub(crate) mod logistic;
pub(crate) mod logistic_mixture;
pub(crate) mod norm;
pub(crate) mod optimizer;
pub(crate) mod pointwise;
pub(crate) mod resample;
pub(crate) mod snake;
pub(crate) mod softmax;
pub(crate) mod spectral;
pub(crate) mod tile;
pub(crate) mod transpose;

pub(crate) use float::{Float, uninit};
pub(crate) use gemm::{Mat, gemm, parallel_gemm};
pub use instruction_set::InstructionSet;
#[cfg(target_arch = "aarch64")]
pub(crate) use simd::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use simd::{Avx2, Avx512};
pub(crate) use simd::{Isa, Plain, dispatch, max, register_sums, sums_in};
pub(crate) use vector::Vectors;

/// Elements that one task of a pointwise kernel takes.
pub(crate) const BLOCK: usize = 16 * 1024;

/// Partial sums of tasks, added in order.
pub(crate) fn add_up<T: Float>(parts: Vec<Vec<T>>) -> Vec<T> {
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_default();
    for part in parts {
        for (t, p) in total.iter_mut().zip(&part) {
            *t += *p;
        }
    }
    total
}
