//! A checkpointed pass has the gradients of the plain one.

use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{ParamStore, Pass, Result, Rng};
use lsgm_nn::ops::{Activation, Conv2dConfig};
use lsgm_nn::{BatchNorm, Conv2d, Dropout, backward, checkpoint, checkpoint_in, with_checkpoints};
use std::rc::Rc;

/// Batch norm, dropout, convolution, with a way around.
struct Block {
    norm: BatchNorm,
    conv: Conv2d,
}

impl Block {
    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let h = self.norm.forward(x, pass.training)?;
        Ok((self.conv.forward(&Dropout { p: 0.3 }.forward(&h, pass)?)? + x)?)
    }
}

struct Net {
    store: ParamStore,
    blocks: Vec<Rc<Block>>,
    x: Var,
}

fn net() -> Net {
    let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(1));
    let block = |i: usize| {
        let params = store.root().pp(i);
        let config = Conv2dConfig::same((3, 3));
        Rc::new(Block {
            norm: BatchNorm::new(3, 1e-5, 0.1, Activation::Silu, &params.pp("norm")).unwrap(),
            conv: Conv2d::new(3, 3, (3, 3), config, true, &params.pp("conv")).unwrap(),
        })
    };
    let blocks = (0..3).map(block).collect();
    let x = Rng::new(2).normal_tensor((4, 3, 5, 5), DType::F64, &Device::Cpu).unwrap();
    Net { store, blocks, x: Var::from_tensor(&x).unwrap() }
}

/// A loss in which the output of the first block is used twice, and its gradients and buffers.
fn run(checkpoints: bool) -> (f64, Vec<(String, Vec<f64>)>) {
    let Net { store, blocks, x } = net();
    let mut rng = Rng::new(3);
    let (loss, gradients) = with_checkpoints(checkpoints, || {
        let mut pass = Pass::train(&mut rng);
        let mut h = x.as_tensor().clone();
        let mut first = None;
        for block in &blocks {
            let block = Rc::clone(block);
            h = checkpoint_in(&mut pass, &[&h], move |h, pass| block.forward(&h[0], pass)).unwrap();
            first.get_or_insert_with(|| h.clone());
        }
        let loss = (h.sqr().unwrap() * first.unwrap()).unwrap().sum_all().unwrap();
        (loss.to_scalar::<f64>().unwrap(), backward(&loss).unwrap())
    });
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut all: Vec<(String, Vec<f64>)> =
        store.vars().into_iter().map(|(name, var)| (name, values(gradients.get(var.as_tensor()).unwrap()))).collect();
    all.push(("x".into(), values(gradients.get(x.as_tensor()).unwrap())));
    // Parameters and running statistics; what has been drawn since.
    all.extend(store.tensors().into_iter().map(|(name, t)| (format!("value of {name}"), values(&t))));
    all.push(("next draw".into(), vec![rng.normal()]));
    (loss, all)
}

#[test]
fn gradients_statistics_and_noise_are_those_of_the_plain_pass() {
    let (plain, checkpointed) = (run(false), run(true));
    assert_eq!(plain.0, checkpointed.0);
    for ((name, a), (other, b)) in plain.1.iter().zip(&checkpointed.1) {
        assert_eq!(name, other);
        let size = a.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * size), "{name}: {a:?} {b:?}");
    }
}

#[test]
fn what_needs_no_gradient_stays_without_and_nothing_leaks_out_of_a_pass() {
    let x = Tensor::new(&[1f64, 2.0], &Device::Cpu).unwrap();
    let square = |x: &Tensor| checkpoint(&[x], |x| Ok(x[0].sqr()?)).unwrap();
    with_checkpoints(true, || assert!(!square(&x).track_op()));
    let v = Var::from_tensor(&x).unwrap();
    // A pass that was given up leaves nothing for the next one.
    with_checkpoints(true, || square(v.as_tensor()));
    let gradients = with_checkpoints(true, || backward(&square(v.as_tensor()).sum_all().unwrap())).unwrap();
    assert_eq!(gradients.get(v.as_tensor()).unwrap().to_vec1::<f64>().unwrap(), [2.0, 4.0]);
    // Outside of one the graph is whole.
    let gradients = square(v.as_tensor()).sum_all().unwrap().backward().unwrap();
    assert_eq!(gradients.get(v.as_tensor()).unwrap().to_vec1::<f64>().unwrap(), [2.0, 4.0]);
}

#[test]
fn segments_within_segments_and_errors_of_the_function() {
    let v = Var::new(&[3f64], &Device::Cpu).unwrap();
    let gradients = with_checkpoints(true, || {
        let y = checkpoint(&[v.as_tensor()], |x| {
            let inner = checkpoint(&[&x[0]], |x| Ok(x[0].sqr()?))?;
            Ok((inner * &x[0])?)
        });
        backward(&y.unwrap().sum_all().unwrap())
    });
    assert_eq!(gradients.unwrap().get(v.as_tensor()).unwrap().to_vec1::<f64>().unwrap(), [27.0]);
    let failed = with_checkpoints(true, || checkpoint(&[v.as_tensor()], |x| Ok(x[0].reshape(7)?)));
    assert!(failed.is_err());
}
