use std::ops::Range;

use lsgm_core::Split;
use serde::{Deserialize, Serialize};

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
    /// Take these items at the end of the part only.
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

    /// The items of a part of `total` items.
    pub fn range(&self, total: usize) -> Range<usize> {
        match (self.drop_last, self.last) {
            (Some(share), _) => 0..total - share.of(total),
            (None, Some(share)) => total - share.of(total)..total,
            (None, None) => 0..total,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.drop_last.is_some() && self.last.is_some() {
            return Err("`last` or `drop_last`, not both".into());
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
    fn of(self, total: usize) -> usize {
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
}
