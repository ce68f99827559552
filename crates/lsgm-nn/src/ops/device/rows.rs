//! What is done to rows, the last dimension of `[.., width]`.

use candle_core::{D, DType, Device, Result as Candle, Shape, Tensor};
use lsgm_core::Result;

use super::{DeviceOp, apply1, apply2, apply3};
use crate::kernels::device::{Element, Launch, ROWS, THREADS, address, fresh, lanes};

/// Columns that a block of `column_sums` takes.
const COLUMNS: usize = 32;

/// Rows that one block adds up, until there are as many parts as there may be.
const ROWS_PER_PART: usize = 64;
const MAX_PARTS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Rows {
    rows: usize,
    width: usize,
    /// Rows after one another that share their factors.
    per: usize,
}

impl Rows {
    /// All rows share their factors.
    fn of(x: &Tensor) -> Result<Self> {
        let width = x.dim(D::Minus1)?;
        let rows = x.elem_count() / width;
        Ok(Self { rows, width, per: rows })
    }

    /// Those of an item of `[B, L, D]` do.
    fn by_item(x: &Tensor) -> Result<Self> {
        Ok(Self { per: x.dim(1)?, ..Self::of(x)? })
    }

    fn lanes(&self) -> usize {
        lanes(self.width)
    }

    fn threads(&self) -> usize {
        self.rows * self.lanes()
    }

    /// What most kernels are told.
    fn numbers(&self) -> [usize; 4] {
        [self.rows, self.width, self.per, self.lanes()]
    }

    /// A kernel with rows, width, segments and lanes.
    fn run(&self, kernel: &'static str, device: &Device, element: Element, addresses: &[u64]) -> Candle<()> {
        Launch::new(&ROWS, kernel, element).addresses(addresses).sizes(self.numbers()).run(device, self.threads())
    }

    /// For each segment the sums over its rows of `g` times `x`, which is normalised first where there are `stats`, and of
    /// `g` alone: `[segments, width]` each, in f32 or as activations.
    fn column_sums(&self, g: &Tensor, x: Option<&Tensor>, stats: Option<&Tensor>, like: DType) -> Candle<[Tensor; 2]> {
        let (device, element) = (g.device(), Element::of(g.dtype())?);
        let (segments, parts) = (self.rows / self.per, self.per.div_ceil(ROWS_PER_PART).min(MAX_PARTS));
        let place = |t: Option<&Tensor>| t.map_or(Ok(0), address);
        let table = fresh((segments * parts, self.width, 2), DType::F64, device)?;
        let tiles = self.width.div_ceil(COLUMNS);
        Launch::new(&ROWS, "column_sums", element)
            .addresses(&[address(g)?, place(x)?, place(stats)?, address(&table)?])
            .sizes([self.width, self.per, parts])
            .run(device, segments * parts * tiles * THREADS as usize)?;
        let sums = || fresh((segments, self.width), like, device);
        let (products, plain) = (sums()?, sums()?);
        Launch::new(&ROWS, "column_totals", element)
            .addresses(&[address(&table)?, address(&products)?, address(&plain)?])
            .sizes([segments, self.width, parts, usize::from(like != DType::F32)])
            .run(device, segments * self.width)?;
        Ok([products, plain])
    }
}

pub(crate) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    apply3(RowNorm::new(x, Rows::of(x)?, eps, true, false)?, [x, gamma, beta])
}

pub(crate) fn rms_norm(x: &Tensor, gamma: &Tensor, eps: f64) -> Result<Tensor> {
    apply2(RowNorm::new(x, Rows::of(x)?, eps, false, false)?, [x, gamma])
}

pub(crate) fn modulated_layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    apply3(RowNorm::new(x, Rows::by_item(x)?, eps, true, true)?, [x, scale, shift])
}

struct RowNorm {
    rows: Rows,
    eps: f64,
    centred: bool,
    /// Whether factors are activations of each item, 1 more than they say.
    modulated: bool,
    /// Mean and reciprocal standard deviation of each row, which the forward pass writes.
    stats: Tensor,
}

impl RowNorm {
    fn new(x: &Tensor, rows: Rows, eps: f64, centred: bool, modulated: bool) -> Result<Self> {
        let stats = fresh((rows.rows, 2), DType::F32, x.device())?;
        Ok(Self { rows, eps, centred, modulated, stats })
    }

    fn flags(&self) -> [usize; 2] {
        [usize::from(self.centred), usize::from(self.modulated)]
    }

    fn run(&self, device: &Device, element: Element, [x, scale, shift, y]: [u64; 4]) -> Candle<()> {
        Launch::new(&ROWS, "row_norm", element)
            .addresses(&[x, scale, shift, y, address(&self.stats)?])
            .sizes(self.rows.numbers())
            .numbers([self.eps])
            .sizes(self.flags())
            .run(device, self.rows.threads())
    }

    fn data_gradient(&self, x: &Tensor, scale: &Tensor, gradient: &Tensor) -> Candle<Tensor> {
        let dx = fresh(x.shape(), x.dtype(), x.device())?;
        Launch::new(&ROWS, "row_norm_data_gradient", Element::of(x.dtype())?)
            .addresses(&[address(x)?, address(scale)?, address(&self.stats)?, address(gradient)?, address(&dx)?])
            .sizes(self.rows.numbers())
            .sizes(self.flags())
            .run(x.device(), self.rows.threads())?;
        Ok(dx)
    }

    /// The gradients of scale and shift.
    fn factor_gradients(&self, x: &Tensor, scale: &Tensor, gradient: &Tensor) -> Candle<[Tensor; 2]> {
        let sums = self.rows.column_sums(gradient, Some(x), Some(&self.stats), scale.dtype())?;
        let [products, plain] = sums.map(|t| t.reshape(scale.shape()));
        Ok([products?, plain?])
    }
}

impl DeviceOp<2> for RowNorm {
    const NAME: &'static str = "rms_norm";

    fn parameters(&self) -> [bool; 2] {
        [false, true]
    }

    fn forward(&self, device: &Device, element: Element, [x, scale]: [u64; 2], y: u64) -> Candle<()> {
        self.run(device, element, [x, scale, 0, y])
    }

    fn backward(&self, [x, scale]: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let dscale = scale.track_op().then(|| self.factor_gradients(x, scale, gradient)).transpose()?;
        let dx = x.track_op().then(|| self.data_gradient(x, scale, gradient)).transpose()?;
        Ok([dx, dscale.map(|[products, _]| products)])
    }
}

impl DeviceOp<3> for RowNorm {
    const NAME: &'static str = "layer_norm";

    fn parameters(&self) -> [bool; 3] {
        [false, !self.modulated, !self.modulated]
    }

    fn forward(&self, device: &Device, element: Element, [x, scale, shift]: [u64; 3], y: u64) -> Candle<()> {
        self.run(device, element, [x, scale, shift, y])
    }

    fn backward(&self, inputs: [&Tensor; 3], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 3]> {
        let [x, scale, shift] = inputs;
        let wanted = scale.track_op() || shift.track_op();
        let factors = wanted.then(|| self.factor_gradients(x, scale, gradient)).transpose()?;
        let dx = x.track_op().then(|| self.data_gradient(x, scale, gradient)).transpose()?;
        let (dscale, dshift) = factors.map(|[products, plain]| (products, plain)).unzip();
        Ok([dx, dscale.filter(|_| scale.track_op()), dshift.filter(|_| shift.track_op())])
    }
}

/// `x: [B, L, D]`, branches of its shape and gates `[B, 1, D]`.
pub(crate) fn gated_sum(x: &Tensor, branch: &Tensor, gate: &Tensor) -> Result<Tensor> {
    apply3(GatedSum(Rows::by_item(x)?), [x, branch, gate])
}

struct GatedSum(Rows);

impl DeviceOp<3> for GatedSum {
    const NAME: &'static str = "gated_sum";

    fn forward(&self, device: &Device, element: Element, [x, branch, gate]: [u64; 3], y: u64) -> Candle<()> {
        self.0.run("gated_rows", device, element, &[x, branch, gate, y])
    }

    fn backward(&self, inputs: [&Tensor; 3], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 3]> {
        let [x, branch, gate] = inputs;
        let of_branch = || {
            let scaled = fresh(x.shape(), x.dtype(), x.device())?;
            let addresses = [address(gradient)?, address(gate)?, address(&scaled)?];
            self.0.run("scaled_rows", x.device(), Element::of(x.dtype())?, &addresses)?;
            Candle::Ok(scaled)
        };
        let of_gate = || {
            let [products, _] = self.0.column_sums(gradient, Some(branch), None, gate.dtype())?;
            products.reshape(gate.shape())
        };
        Ok([
            x.track_op().then(|| gradient.clone()),
            branch.track_op().then(of_branch).transpose()?,
            gate.track_op().then(of_gate).transpose()?,
        ])
    }
}

/// `x: [.., D]` and a bias `[D]`.
pub(crate) fn add_row(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    apply2(AddRow(Rows::of(x)?), [x, bias])
}

struct AddRow(Rows);

impl DeviceOp<2> for AddRow {
    const NAME: &'static str = "add_row";

    fn parameters(&self) -> [bool; 2] {
        [false, true]
    }

    fn forward(&self, device: &Device, element: Element, [x, bias]: [u64; 2], y: u64) -> Candle<()> {
        Launch::new(&ROWS, "add_row", element)
            .addresses(&[x, bias, y])
            .sizes([self.0.rows, self.0.width, self.0.lanes()])
            .run(device, self.0.threads())
    }

    fn backward(&self, [x, bias]: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let of_bias = || {
            let [_, plain] = self.0.column_sums(gradient, None, None, DType::F32)?;
            plain.reshape(bias.shape())
        };
        Ok([x.track_op().then(|| gradient.clone()), bias.track_op().then(of_bias).transpose()?])
    }
}

/// `softmax(factor · x)` of each row, or its logarithm.
pub(crate) fn softmax(x: &Tensor, factor: f64, log: bool) -> Result<Tensor> {
    apply1(Softmax { rows: Rows::of(x)?, factor, log }, [x])
}

struct Softmax {
    rows: Rows,
    factor: f64,
    log: bool,
}

impl Softmax {
    fn run(&self, kernel: &'static str, device: &Device, element: Element, addresses: &[u64]) -> Candle<()> {
        Launch::new(&ROWS, kernel, element)
            .addresses(addresses)
            .sizes([self.rows.rows, self.rows.width, self.rows.lanes()])
            .numbers([self.factor])
            .sizes([usize::from(self.log)])
            .run(device, self.rows.threads())
    }
}

impl DeviceOp<1> for Softmax {
    const NAME: &'static str = "softmax";

    fn forward(&self, device: &Device, element: Element, [x]: [u64; 1], y: u64) -> Candle<()> {
        self.run("softmax", device, element, &[x, y])
    }

    fn backward(&self, [x]: [&Tensor; 1], y: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 1]> {
        let dx = fresh(x.shape(), x.dtype(), x.device())?;
        let addresses = [address(y)?, address(gradient)?, address(&dx)?];
        self.run("softmax_gradient", x.device(), Element::of(x.dtype())?, &addresses)?;
        Ok([Some(dx)])
    }
}

/// `g · v / (|v| + eps)` of each row of `v: [O, ..]`, both parameters.
pub(crate) fn weight_norm(v: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
    let rows = v.dim(0)?;
    let rows = Rows { rows, width: v.elem_count() / rows, per: rows };
    apply2(WeightNorm { rows, eps, norms: fresh(rows.rows, DType::F64, v.device())? }, [v, g])
}

struct WeightNorm {
    rows: Rows,
    eps: f64,
    /// The length of each row, which the forward pass writes.
    norms: Tensor,
}

impl WeightNorm {
    fn run(&self, kernel: &'static str, device: &Device, addresses: &[u64]) -> Candle<()> {
        Launch::new(&ROWS, kernel, Element::F32)
            .addresses(addresses)
            .sizes([self.rows.rows, self.rows.width, self.rows.lanes()])
            .numbers([self.eps])
            .run(device, self.rows.threads())
    }
}

impl DeviceOp<2> for WeightNorm {
    const NAME: &'static str = "weight_norm";

    fn parameters(&self) -> [bool; 2] {
        [true, true]
    }

    fn forward(&self, device: &Device, _: Element, [v, g]: [u64; 2], w: u64) -> Candle<()> {
        self.run("weight_norm", device, &[v, g, w, address(&self.norms)?])
    }

    fn backward(&self, [v, g]: [&Tensor; 2], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 2]> {
        let (dv, dg) = (fresh(v.shape(), DType::F32, v.device())?, fresh(g.shape(), DType::F32, v.device())?);
        let norms = address(&self.norms)?;
        let addresses = [address(v)?, address(g)?, norms, address(gradient)?, address(&dv)?, address(&dg)?];
        self.run("weight_norm_gradients", v.device(), &addresses)?;
        Ok([v.track_op().then_some(dv), g.track_op().then_some(dg)])
    }
}

/// Rows `ids` (`u32`) of `table: [V, D]`; NaN for an id that it has not.
pub(crate) fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    apply1(Embedding { ids: ids.contiguous()?, rows, width }, [table])
}

struct Embedding {
    ids: Tensor,
    rows: usize,
    width: usize,
}

impl DeviceOp<1> for Embedding {
    const NAME: &'static str = "embedding";

    fn parameters(&self) -> [bool; 1] {
        [true]
    }

    fn shape(&self, _: &Shape) -> Shape {
        let mut dims = self.ids.dims().to_vec();
        dims.push(self.width);
        dims.into()
    }

    fn forward(&self, device: &Device, element: Element, [table]: [u64; 1], y: u64) -> Candle<()> {
        let (count, lanes) = (self.ids.elem_count(), lanes(self.width));
        Launch::new(&ROWS, "embedding", element)
            .addresses(&[table, address(&self.ids)?, y])
            .sizes([self.rows, count, self.width, lanes])
            .run(device, count * lanes)
    }

    fn backward(&self, [table]: [&Tensor; 1], _: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; 1]> {
        let dtable = fresh(table.shape(), DType::F32, table.device())?;
        let threads = THREADS as usize;
        Launch::new(&ROWS, "embedding_gradient", Element::F32)
            .addresses(&[address(&self.ids)?, address(gradient)?, address(&dtable)?])
            .sizes([self.ids.elem_count(), self.width])
            .run(table.device(), self.rows * self.width.div_ceil(threads) * threads)?;
        Ok([Some(dtable)])
    }
}
