use candle_core::{Device, Tensor};
use lsgm_core::{Batch, Result, Rng};

/// What a feature network learns to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// The labels of the data, of which there are so many.
    Labels(usize),
    /// By how many quarter turns a square plane was turned (Gidaris et al. 2018).
    Turns,
    /// Along which of its two axes a plane that is no square was mirrored.
    Mirrors,
}

impl Task {
    /// The task for data of which `probe` is a part.
    pub(crate) fn of(probe: &Batch) -> Result<Self> {
        let labels = probe.labels.as_ref().map(|l| l.to_vec1::<u32>()).transpose()?.unwrap_or_default();
        let classes = labels.iter().max().map_or(0, |most| *most as usize + 1);
        let several = labels.iter().min() != labels.iter().max();
        let (_, _, height, width) = probe.x.dims4()?;
        Ok(match (several, height == width) {
            (true, _) => Self::Labels(classes),
            (false, true) => Self::Turns,
            (false, false) => Self::Mirrors,
        })
    }

    pub(crate) fn classes(self) -> usize {
        match self {
            Self::Labels(classes) => classes,
            Self::Turns | Self::Mirrors => 4,
        }
    }

    /// For the name of the features.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Labels(classes) => format!("{classes} labels"),
            Self::Turns => "quarter turns".to_owned(),
            Self::Mirrors => "mirrored axes".to_owned(),
        }
    }

    /// Planes and the classes `[B]` (`u32`) to learn for them. Items with a label that the probe did not have are left
    /// out.
    pub(crate) fn pose(self, batch: &Batch, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
        let x = &batch.x;
        let items = x.dim(0)?;
        if let Self::Labels(classes) = self {
            let labels = batch.labels.as_ref().map(|l| l.to_vec1::<u32>()).transpose()?.unwrap_or_default();
            let known: Vec<(u32, u32)> = (0..).zip(labels).filter(|(_, label)| (*label as usize) < classes).collect();
            let (kept, labels): (Vec<u32>, Vec<u32>) = known.into_iter().unzip();
            let kept = Tensor::new(kept, x.device())?;
            return Ok((x.index_select(&kept, 0)?, Tensor::new(labels, &Device::Cpu)?));
        }
        let classes: Vec<u32> = (0..items).map(|_| rng.below(4) as u32).collect();
        let moved = classes
            .iter()
            .enumerate()
            .map(|(i, class)| self.moved(&x.narrow(0, i, 1)?, *class))
            .collect::<Result<Vec<_>>>()?;
        Ok((Tensor::cat(&moved, 0)?, Tensor::new(classes, &Device::Cpu)?))
    }

    /// `[1, C, H, W]` under the symmetry of a class.
    fn moved(self, x: &Tensor, class: u32) -> Result<Tensor> {
        let turned = self == Self::Turns;
        Ok(match class {
            0 => x.clone(),
            1 if turned => x.transpose(2, 3)?.contiguous()?.flip(&[2])?,
            1 => x.flip(&[2])?,
            2 => x.flip(&[2, 3])?,
            _ if turned => x.transpose(2, 3)?.contiguous()?.flip(&[3])?,
            _ => x.flip(&[3])?,
        }
        .contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(dims: (usize, usize, usize, usize), labels: Option<&[u32]>) -> Batch {
        let n = dims.0 * dims.1 * dims.2 * dims.3;
        let x = Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap().reshape(dims).unwrap();
        Batch { x, labels: labels.map(|l| Tensor::new(l, &Device::Cpu).unwrap()) }
    }

    #[test]
    fn the_data_decide_what_is_learnt() {
        assert_eq!(Task::of(&batch((3, 1, 2, 2), Some(&[4, 0, 4]))).unwrap(), Task::Labels(5));
        assert_eq!(Task::of(&batch((3, 1, 2, 2), Some(&[4, 4, 4]))).unwrap(), Task::Turns);
        assert_eq!(Task::of(&batch((3, 1, 2, 2), None)).unwrap(), Task::Turns);
        assert_eq!(Task::of(&batch((3, 1, 2, 3), None)).unwrap(), Task::Mirrors);
    }

    #[test]
    fn four_quarter_turns_are_none_and_all_four_differ() {
        let x = batch((1, 1, 2, 2), None).x;
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let turn = |x: &Tensor| Task::Turns.moved(x, 1).unwrap();
        assert_eq!(flat(&turn(&turn(&turn(&turn(&x))))), flat(&x));
        assert_eq!(flat(&turn(&turn(&x))), flat(&Task::Turns.moved(&x, 2).unwrap()));
        assert_eq!(flat(&turn(&turn(&turn(&x)))), flat(&Task::Turns.moved(&x, 3).unwrap()));
        assert_ne!(flat(&turn(&x)), flat(&x));
        let wide = batch((1, 1, 2, 3), None).x;
        let mirrored = [1, 2, 3].map(|class| flat(&Task::Mirrors.moved(&wide, class).unwrap()));
        assert_eq!(mirrored[0], [3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
        assert_eq!(mirrored[1], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
        assert_eq!(mirrored[2], [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]);
    }

    #[test]
    fn items_with_unknown_labels_are_left_out() {
        let (x, labels) = Task::Labels(2).pose(&batch((3, 1, 1, 1), Some(&[1, 7, 0])), &mut Rng::new(0)).unwrap();
        assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 2.0]);
        assert_eq!(labels.to_vec1::<u32>().unwrap(), [1, 0]);
    }
}
