use std::ops::Range;

use lsgm_core::Split;
use serde::{Deserialize, Serialize};

use super::ImageFolderSource;

/// The rule of each split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// What is fitted.
    #[serde(default = "default_train")]
    pub train: SplitRule,
    /// What decisions are made on.
    #[serde(default = "default_val")]
    pub val: SplitRule,
    /// What is reported.
    #[serde(default = "default_test")]
    pub test: SplitRule,
}

impl Default for Splits {
    /// The last tenth of part `train` for validation, the rest of it for training, part `test` for testing.
    fn default() -> Self {
        Self { train: default_train(), val: default_val(), test: default_test() }
    }
}

fn default_train() -> SplitRule {
    SplitRule { part: "train".into(), drop_last: Some(Share::Fraction(0.1)), last: None, items: None }
}

fn default_val() -> SplitRule {
    SplitRule { part: "train".into(), drop_last: None, last: Some(Share::Fraction(0.1)), items: None }
}

fn default_test() -> SplitRule {
    SplitRule::whole("test")
}

impl Splits {
    /// Parts of the split's own names, whole.
    pub(crate) fn parts() -> Self {
        Self { train: SplitRule::whole("train"), val: SplitRule::whole("val"), test: SplitRule::whole("test") }
    }

    /// The folders `train`, `val` and `test` of images. Without a folder for validation, the last tenth of `train` is for
    /// it; without one for testing, what is for validation is for testing too.
    pub(crate) fn folders(val: bool, test: bool) -> Self {
        let Self { train: rest, val: tenth, .. } = Self::default();
        let (train, val) = if val { (SplitRule::whole("train"), SplitRule::whole("val")) } else { (rest, tenth) };
        let test = if test { SplitRule::whole("test") } else { val.clone() };
        Self { train, val, test }
    }

    /// Everything in a folder: the last share for testing, the one before it for validation.
    pub(crate) fn shares(val: f64, test: f64) -> Self {
        let rule = |drop_last: f64, last: Option<f64>| SplitRule {
            part: ImageFolderSource::WHOLE.into(),
            drop_last: (drop_last > 0.0).then_some(Share::Fraction(drop_last)),
            last: last.map(Share::Fraction),
            items: None,
        };
        Self { train: rule(test + val, None), val: rule(test, Some(val)), test: rule(0.0, Some(test)) }
    }

    /// The rule of a split.
    pub fn rule(&self, split: Split) -> &SplitRule {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        Split::ALL.into_iter().try_for_each(|s| self.rule(s).check().map_err(|m| format!("`splits.{s}`: {m}")))
    }
}

/// Which items of which part of the source a split consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// Part of the source.
    pub part: String,
    /// Leave these items at the end of the part to another split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_last: Option<Share>,
    /// Take these items only, at the end of what `drop_last` leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Share>,
    /// Number of items that a check expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
}

impl SplitRule {
    fn whole(part: &str) -> Self {
        Self { part: part.into(), drop_last: None, last: None, items: None }
    }

    /// Whether it takes all of its part.
    pub(crate) fn is_whole(&self) -> bool {
        self.drop_last.is_none() && self.last.is_none()
    }

    /// The items of a part of `total` items; fractions are of the whole part.
    pub fn range(&self, total: usize) -> Range<usize> {
        let end = total - self.drop_last.map_or(0, |share| share.of(total));
        let start = match (self.drop_last, self.last) {
            (_, None) => 0,
            // Fractions are added before they are rounded, as in the rule of the split that drops both.
            (Some(Share::Fraction(a)), Some(Share::Fraction(b))) => total - Share::Fraction(a + b).of(total),
            (_, Some(share)) => end - share.of(total).min(end),
        };
        start..end
    }

    fn check(&self) -> Result<(), String> {
        if let (Some(Share::Fraction(a)), Some(Share::Fraction(b))) = (self.drop_last, self.last)
            && a + b >= 1.0
        {
            return Err(format!("`last` and `drop_last` add up to {}: keep them below 1", a + b));
        }
        for share in [self.drop_last, self.last].into_iter().flatten() {
            if matches!(share, Share::Fraction(f) if !(f > 0.0 && f < 1.0)) {
                return Err("a fraction lies between 0 and 1; write a whole number for a number of items".into());
            }
        }
        Ok(())
    }
}

/// A number of items, or a fraction of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Share {
    /// So many, or all there are.
    Items(usize),
    /// This fraction, rounded.
    Fraction(f64),
}

impl Share {
    /// The number of items that this is of `total`.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Items(n) => n.min(total),
            Self::Fraction(f) => ((total as f64 * f).round() as usize).min(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn train_and_val_share_no_item_and_leave_none() {
        for (share, val) in [(Share::Items(5000), 5000), (Share::Fraction(0.1), 6000), (Share::Items(90_000), 60_000)] {
            let train = SplitRule { drop_last: Some(share), ..SplitRule::whole("train") }.range(60_000);
            let rest = SplitRule { last: Some(share), ..SplitRule::whole("train") }.range(60_000);
            assert_eq!((train.start, train.end, rest.end), (0, rest.start, 60_000));
            assert_eq!(rest.len(), val);
        }
        assert_eq!(Splits::default().train.range(0), 0..0);
    }

    #[test]
    fn three_splits_of_one_part_share_no_item_and_leave_none() {
        for total in [0, 1, 7, 9, 10, 11, 99, 70_001] {
            for (val, test) in [(0.1, 0.1), (0.05, 0.15), (0.5, 0.25)] {
                let splits = Splits::shares(val, test);
                let [train, val, test] = Split::ALL.map(|s| splits.rule(s).range(total));
                assert_eq!((train.start, train.end, val.end, test.end), (0, val.start, test.start, total));
            }
        }
        let rule = SplitRule { drop_last: Some(Share::Items(3)), last: Some(Share::Items(4)), ..SplitRule::whole("x") };
        assert_eq!((rule.range(10), rule.range(5), rule.range(2)), (3..7, 0..2, 0..0));
    }
}
