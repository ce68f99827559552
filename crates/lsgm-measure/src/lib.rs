//! How close samples are to data: a Fréchet distance, precision and recall, density and coverage, in the feature space of
//! a small convolutional network that the toolkit trains on the data set itself.
//!
//! Anything that can be laid out as planes `[B, C, H, W]` can be measured: images, and sound as log-mel spectrograms. The
//! network learns to name the labels of the data, or, where there are none, by which symmetry a plane was moved
//! ([`FeatureSpace::open`]). Its features say nothing about other data sets and are not those of the Inception network:
//! figures compare models of one data set under one version of the features ([`FeatureSpace::name`]), and none of them is
//! an FID.
//!
//! This crate knows planes, neither modalities nor the training engine.

mod cache;
mod classes;
mod compare;
mod digest;
mod frechet;
mod linalg;
mod neighbours;
mod network;
mod space;
mod task;
mod training;

pub use compare::{compare, compare_with};
pub use frechet::Gaussian;
pub use space::{Described, FeatureSpace};
pub use training::Training;
