//! Binarized images: the plain residual VAE with a Bernoulli likelihood.
