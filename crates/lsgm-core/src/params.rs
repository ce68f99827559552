use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};

use crate::{Error, Result, Rng};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element the same.
    Const(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in ±bound.
    Uniform(f64),
}

#[derive(Debug)]
struct Store {
    vars: BTreeMap<String, Var>,
    buffers: BTreeMap<String, Var>,
    rng: Rng,
    dtype: DType,
    device: Device,
    /// Values that there may be.
    limit: usize,
    /// Those that may still be added.
    left: usize,
}

/// Values that a parameter counts for beside its own against [`ParamStore::limited`]: each has a name and a place.
const OVERHEAD: usize = 1024;

/// All parameters and buffers of a model by name, in the order of their names.
///
/// Parameters are trained. Buffers (batch-norm statistics, power-iteration vectors) are stored with them but seen by
/// no optimizer. Cloning shares the store.
#[derive(Debug, Clone)]
pub struct ParamStore(Arc<Mutex<Store>>);

impl ParamStore {
    /// An empty store. `rng` draws the initial values.
    pub fn new(dtype: DType, device: &Device, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Store {
            vars: BTreeMap::new(),
            buffers: BTreeMap::new(),
            rng,
            dtype,
            device: device.clone(),
            limit: usize::MAX,
            left: usize::MAX,
        })))
    }

    /// The store for a model of at most about so many values, before any is made: an architecture that comes from elsewhere
    /// may ask for more than a machine has.
    pub fn limited(self, values: usize) -> Self {
        let mut store = self.lock();
        (store.limit, store.left) = (values, values);
        drop(store);
        self
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // A poisoned store is still a consistent map: every insertion is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root from which a model takes its trainable parameters.
    pub fn root(&self) -> Params {
        Params { store: self.clone(), path: String::new(), frozen: false }
    }

    /// The root for a model that is only evaluated: the same values, but no gradient reaches them and none is computed.
    pub fn frozen_root(&self) -> Params {
        Params { frozen: true, ..self.root() }
    }

    /// Trainable parameters by name, in the order of their names.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.lock().vars.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Buffers by name, in the order of their names.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        self.lock().buffers.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Number of trainable values under `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.lock().vars.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(_, v)| v.elem_count()).sum()
    }

    /// A store with copies of all values, sharing nothing with this one.
    pub fn deep_copy(&self) -> Result<Self> {
        let store = self.lock();
        let copy = |map: &BTreeMap<String, Var>| -> Result<BTreeMap<String, Var>> {
            map.iter().map(|(k, v)| Ok((k.clone(), Var::from_tensor(&v.as_tensor().copy()?)?))).collect()
        };
        Ok(Self(Arc::new(Mutex::new(Store {
            vars: copy(&store.vars)?,
            buffers: copy(&store.buffers)?,
            rng: store.rng.clone(),
            dtype: store.dtype,
            device: store.device.clone(),
            limit: store.limit,
            left: store.left,
        }))))
    }

    /// Every parameter and buffer, sharing storage with the store.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let store = self.lock();
        store.vars.iter().chain(&store.buffers).map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect()
    }

    /// Set every parameter and buffer from `tensors`.
    ///
    /// # Errors
    /// [`Error::Contract`] that lists missing, extra and mis-shaped names; nothing is set then.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let mine = self.tensors();
        let mut wrong: Vec<String> =
            mine.keys().filter(|k| !tensors.contains_key(*k)).map(|k| format!("`{k}` is missing")).collect();
        for (name, t) in tensors {
            match mine.get(name) {
                None => wrong.push(format!("`{name}` is unknown")),
                Some(m) if m.dims() != t.dims() => {
                    wrong.push(format!("`{name}` has shape {:?} instead of {:?}", t.dims(), m.dims()))
                }
                Some(_) => {}
            }
        }
        if !wrong.is_empty() {
            return Err(Error::contract("parameters", list_first(&wrong, 8)));
        }
        let store = self.lock();
        for (name, var) in store.vars.iter().chain(&store.buffers) {
            if let Some(t) = tensors.get(name) {
                var.set(&t.to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
        }
        Ok(())
    }
}

fn list_first(items: &[String], n: usize) -> String {
    let shown = items.iter().take(n).cloned().collect::<Vec<_>>().join("; ");
    if items.len() > n { format!("{shown}; and {} more", items.len() - n) } else { shown }
}

/// A named place in a [`ParamStore`] from which a layer takes its parameters.
#[derive(Debug, Clone)]
pub struct Params {
    store: ParamStore,
    path: String,
    frozen: bool,
}

impl Params {
    /// The place `name` below this one.
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        Self { path: self.name(&name.to_string()), ..self.clone() }
    }

    /// The device of the store.
    pub fn device(&self) -> Device {
        self.store.lock().device.clone()
    }

    /// The element type of the store.
    pub fn dtype(&self) -> DType {
        self.store.lock().dtype
    }

    /// The parameter `name`: made with `init` if the store has none, else the one that is there.
    ///
    /// # Errors
    /// [`Error::Contract`] when the store has it with another shape; [`Error::ModelTooLarge`] as [`ParamStore::limited`] says.
    pub fn get(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor> {
        let var = self.var(name, shape.into(), init, false)?;
        Ok(if self.frozen { var.as_tensor().detach() } else { var.as_tensor().clone() })
    }

    /// The buffer `name`, every element `value` if it is new. Set it through [`Var::set`].
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn buffer(&self, name: &str, shape: impl Into<Shape>, value: f64) -> Result<Var> {
        self.buffer_with(name, shape, Init::Const(value))
    }

    /// The buffer `name`, made with `init` if it is new.
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn buffer_with(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.var(name, shape.into(), init, true)
    }

    fn name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn var(&self, name: &str, shape: Shape, init: Init, buffer: bool) -> Result<Var> {
        let name = self.name(name);
        let mut store = self.store.lock();
        let map = if buffer { &store.buffers } else { &store.vars };
        if let Some(var) = map.get(&name) {
            if var.shape() != &shape {
                return Err(Error::contract(
                    "parameters",
                    format!("`{name}` has shape {:?} instead of {:?}", var.dims(), shape.dims()),
                ));
            }
            return Ok(var.clone());
        }
        let count = shape.dims().iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        let left = count.and_then(|n| store.left.checked_sub(n.checked_add(OVERHEAD)?));
        store.left = left.ok_or_else(|| {
            let (parameter, dims) = (name.clone(), shape.dims().to_vec());
            Error::ModelTooLarge { parameter, dims, limit: store.limit }
        })?;
        let (dtype, device) = (store.dtype, store.device.clone());
        let var = Var::from_tensor(&initial(&mut store.rng, &shape, init, dtype, &device)?)?;
        let map = if buffer { &mut store.buffers } else { &mut store.vars };
        map.insert(name, var.clone());
        Ok(var)
    }
}

fn initial(rng: &mut Rng, shape: &Shape, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(match init {
        Init::Const(c) => Tensor::full(c as f32, shape.clone(), device)?.to_dtype(dtype)?,
        Init::Normal(std) => (rng.normal_tensor(shape.clone(), dtype, device)? * std)?,
        Init::Uniform(bound) => rng.uniform_tensor(shape.clone(), dtype, device)?.affine(2.0 * bound, -bound)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> ParamStore {
        ParamStore::new(DType::F32, &Device::Cpu, Rng::new(1))
    }

    #[test]
    fn the_second_build_shares_the_first_ones_values() {
        let s = store();
        let a = s.root().pp("enc").get("w", (2, 3), Init::Normal(1.0)).unwrap();
        let b = s.frozen_root().pp("enc").get("w", (2, 3), Init::Normal(1.0)).unwrap();
        assert_eq!(a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
        assert!(a.is_variable() && !b.is_variable());
        s.vars()[0].1.set(&a.zeros_like().unwrap()).unwrap();
        assert_eq!(b.to_vec2::<f32>().unwrap(), vec![vec![0.0; 3]; 2]);
        assert_eq!(s.count("enc."), 6);
        assert!(s.root().pp("enc").get("w", (3, 2), Init::Const(0.0)).is_err());
    }

    #[test]
    fn a_limited_store_makes_no_more_than_that() {
        let s = store().limited(1 << 20);
        s.root().get("a", (512, 1024), Init::Const(0.0)).unwrap();
        for shape in [vec![512, 1025], vec![usize::MAX, 2], vec![1 << 40]] {
            let message = s.root().get("b", shape, Init::Const(0.0)).unwrap_err().to_string();
            assert!(message.contains("`b` [") && message.contains("more than 1048576 values"), "{message}");
        }
        assert_eq!(s.vars().len(), 1);
        // Many small ones count too.
        let small = (0..1024).map(|i| s.root().get(&i.to_string(), 1, Init::Const(0.0)));
        assert!(small.filter(Result::is_err).count() > 0);
    }

    #[test]
    fn load_names_what_does_not_fit_and_sets_nothing() {
        let s = store();
        s.root().get("a", 2, Init::Const(1.0)).unwrap();
        s.root().buffer("b", 2, 1.0).unwrap();
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let bad = BTreeMap::from([("a".to_owned(), zeros(3)), ("c".to_owned(), zeros(2))]);
        let message = s.load(&bad).unwrap_err().to_string();
        for part in ["`b` is missing", "`a` has shape [3] instead of [2]", "`c` is unknown"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(s.tensors()["a"].to_vec1::<f32>().unwrap(), [1.0, 1.0]);
        let copy = s.deep_copy().unwrap();
        s.load(&BTreeMap::from([("a".to_owned(), zeros(2)), ("b".to_owned(), zeros(2))])).unwrap();
        assert_eq!(s.tensors()["a"].to_vec1::<f32>().unwrap(), [0.0, 0.0]);
        assert_eq!(copy.tensors()["a"].to_vec1::<f32>().unwrap(), [1.0, 1.0]);
    }
}
