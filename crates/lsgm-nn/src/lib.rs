//! Layers, CPU kernels with hand-written backward passes, optimizers and initialisers for training with candle.
