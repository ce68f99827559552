//! The score-based generative prior: SDEs, mixed score, weightings, score networks, samplers and likelihoods.
