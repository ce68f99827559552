use lsgm_core::{Batch, Dataset, ParamStore, Result, Rng};
use lsgm_nn::ops::categorical_log_prob;
use lsgm_nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};

use crate::network::Network;
use crate::task::Task;

/// How a feature network is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Optimizer steps.
    pub steps: usize,
    /// Items in a step.
    pub batch_size: usize,
    /// Highest learning rate of Adam, which falls to 0 along a cosine.
    pub learning_rate: f64,
}

impl Default for Training {
    fn default() -> Self {
        Self { steps: 500, batch_size: 64, learning_rate: 4e-3 }
    }
}

impl Training {
    /// Train `network`, whose parameters `store` holds. Everything random comes from a seed of the toolkit's own: the
    /// same data give the same features.
    pub(crate) fn run(
        &self,
        network: &Network,
        store: &ParamStore,
        task: Task,
        data: &dyn Dataset,
        progress: &mut dyn FnMut(f64),
    ) -> Result<()> {
        let mut rng = Rng::new(0).fork("feature training");
        let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(adam, store.vars())?;
        for step in 0..self.steps {
            let indices: Vec<usize> = (0..self.batch_size).map(|_| rng.below(data.len())).collect();
            let batch: Batch = data.batch(&indices, &mut rng)?;
            let (x, classes) = task.pose(&batch, &mut rng)?;
            if x.dim(0)? == 0 {
                continue;
            }
            let logits = network.logits(&network.features(&x)?)?;
            let loss = categorical_log_prob(&logits, &classes)?.mean_all()?.neg()?;
            let gradients = Gradients::collect(&loss.backward()?, optimizer.vars());
            let share = step as f64 / self.steps as f64;
            let rate = self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
            let clip = (1.0 / gradients.norm()?.max(1.0)).min(1.0);
            optimizer.step(&gradients, rate, clip, None)?;
            progress((step + 1) as f64 / self.steps as f64);
        }
        Ok(())
    }
}
