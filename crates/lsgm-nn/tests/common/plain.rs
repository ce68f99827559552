//! References written for reading: the formulas as loops over `f64`.

use candle_core::Tensor;
use lsgm_nn::ops::{Conv2dConfig, ConvTranspose2dConfig};

use super::{tensor, values};

fn dims4(t: &Tensor) -> (usize, usize, usize, usize) {
    t.dims4().unwrap()
}

/// `y[b, o, i, j] = bias[o] + Σ_{c, u, v} w[o, c, u, v] · x[b, group(o) + c, i·s + u·d − p, j·s + v·d − p]`.
pub(crate) fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Tensor {
    let ((batch, channels, height, width), (outputs, per_group, kh, kw)) = (dims4(x), dims4(w));
    let (s, p, d) = (config.stride, config.padding, config.dilation);
    let out_h = (height + 2 * p.0 - d.0 * (kh - 1) - 1) / s.0 + 1;
    let out_w = (width + 2 * p.1 - d.1 * (kw - 1) - 1) / s.1 + 1;
    let (x, w) = (values(x), values(w));
    let bias = bias.map_or(vec![0.0; outputs], values);
    let mut y = Vec::new();
    for b in 0..batch {
        for o in 0..outputs {
            let first = o / (outputs / config.groups) * per_group;
            for i in 0..out_h {
                for j in 0..out_w {
                    let mut sum = bias[o];
                    for c in 0..per_group {
                        for u in 0..kh {
                            for v in 0..kw {
                                let (row, column) = (i * s.0 + u * d.0, j * s.1 + v * d.1);
                                if row < p.0 || column < p.1 || row - p.0 >= height || column - p.1 >= width {
                                    continue;
                                }
                                let at = ((b * channels + first + c) * height + row - p.0) * width + column - p.1;
                                sum += w[((o * per_group + c) * kh + u) * kw + v] * x[at];
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    tensor(y, (batch, outputs, out_h, out_w))
}

/// Every `x[b, c, i, j]` adds `w[c, o, u, v]` times itself to `y[b, o, i·s + u·d − p, j·s + v·d − p]`.
pub(crate) fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &ConvTranspose2dConfig,
) -> Tensor {
    let ((batch, channels, height, width), (_, per_group, kh, kw)) = (dims4(x), dims4(w));
    let (s, p, d, extra) = (config.stride, config.padding, config.dilation, config.output_padding);
    let out_h = (height - 1) * s.0 + d.0 * (kh - 1) + extra.0 + 1 - 2 * p.0;
    let out_w = (width - 1) * s.1 + d.1 * (kw - 1) + extra.1 + 1 - 2 * p.1;
    let outputs = per_group * config.groups;
    let (x, w) = (values(x), values(w));
    let mut y = vec![0.0; batch * outputs * out_h * out_w];
    if let Some(bias) = bias {
        let bias = values(bias);
        for (i, y) in y.iter_mut().enumerate() {
            *y = bias[i / (out_h * out_w) % outputs];
        }
    }
    for b in 0..batch {
        for c in 0..channels {
            let first = c / (channels / config.groups) * per_group;
            for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
                for o in 0..per_group {
                    for (u, v) in (0..kh).flat_map(|u| (0..kw).map(move |v| (u, v))) {
                        let (row, column) = (i * s.0 + u * d.0, j * s.1 + v * d.1);
                        if row < p.0 || column < p.1 || row - p.0 >= out_h || column - p.1 >= out_w {
                            continue;
                        }
                        let to = ((b * outputs + first + o) * out_h + row - p.0) * out_w + column - p.1;
                        let from = ((b * channels + c) * height + i) * width + j;
                        y[to] += x[from] * w[((c * per_group + o) * kh + u) * kw + v];
                    }
                }
            }
        }
    }
    tensor(y, (batch, outputs, out_h, out_w))
}

/// `f` applied to each run of `width` elements.
pub(crate) fn rows(x: &Tensor, width: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Tensor {
    tensor(values(x).chunks(width).flat_map(f).collect(), x.shape())
}

/// `f` applied to each element.
pub(crate) fn map(x: &Tensor, f: impl Fn(f64) -> f64) -> Tensor {
    tensor(values(x).into_iter().map(f).collect(), x.shape())
}

pub(crate) fn mean_and_variance(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64)
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn softmax(row: &[f64]) -> Vec<f64> {
    let total: f64 = row.iter().map(|v| v.exp()).sum();
    row.iter().map(|v| v.exp() / total).collect()
}

/// `softmax(scale · q · kᵀ) · v`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
    let ((batch, heads, queries, dim), keys) = (dims4(q), dims4(k).2);
    let (qs, ks, vs) = (values(q), values(k), values(v));
    let mut y = Vec::new();
    for head in 0..batch * heads {
        for i in 0..queries {
            let q = &qs[(head * queries + i) * dim..][..dim];
            let score = |j: usize| {
                let k = &ks[(head * keys + j) * dim..][..dim];
                scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>()
            };
            let weights = softmax(&(0..keys).map(score).collect::<Vec<_>>());
            for d in 0..dim {
                y.push(weights.iter().enumerate().map(|(j, w)| w * vs[(head * keys + j) * dim + d]).sum());
            }
        }
    }
    tensor(y, q.shape())
}
