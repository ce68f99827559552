//! The parts of a model and their parameters, as a table.

use std::collections::BTreeMap;

use candle_core::Var;

/// Parameters below one name.
#[derive(Default)]
struct Part {
    tensors: usize,
    parameters: usize,
    /// The shape of the only tensor called `weight`.
    weight: Option<Vec<usize>>,
    weights: usize,
}

impl Part {
    fn add(&mut self, name: &str, var: &Var) {
        self.tensors += 1;
        self.parameters += var.elem_count();
        if name == "weight" || name.ends_with(".weight") {
            self.weights += 1;
            self.weight = Some(var.dims().to_vec());
        }
    }

    fn row(&self, name: &str) -> String {
        let shape = match &self.weight {
            Some(dims) if self.weights == 1 => format!("{dims:?}"),
            _ => String::new(),
        };
        format!("{name:<34}{shape:<20}{:>9}{:>14}\n", self.tensors, grouped(self.parameters))
    }
}

/// Encoder, decoder and prior with the parts of each, and the whole.
pub(super) fn table(vars: &[(String, Var)]) -> String {
    let (mut parts, mut whole) = (BTreeMap::<String, Part>::new(), Part::default());
    for (name, var) in vars {
        let mut names = name.split('.');
        let part = names.next().unwrap_or_default().to_owned();
        // A layer of its own, or a part with layers below it.
        if let (Some(below), Some(_)) = (names.next(), names.next()) {
            parts.entry(format!("{part}.{below}")).or_default().add(name, var);
        }
        parts.entry(part).or_default().add(name, var);
        whole.add(name, var);
    }
    let mut text = format!("{:<34}{:<20}{:>9}{:>14}\n", "part", "weight", "tensors", "parameters");
    for (name, part) in &parts {
        text.push_str(&part.row(&if name.contains('.') { format!("  {name}") } else { name.clone() }));
    }
    text + &whole.row("whole")
}

/// 1234567 as 1,234,567.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn parts_add_up() {
        let var = |dims: &[usize]| Var::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        let vars = [
            ("decoder.out.bias".to_owned(), var(&[3])),
            ("decoder.out.weight".to_owned(), var(&[3, 1000])),
            ("encoder.0.a.weight".to_owned(), var(&[2, 2])),
            ("encoder.0.b.weight".to_owned(), var(&[2, 2])),
            ("prior.logit".to_owned(), var(&[5])),
        ];
        let table = table(&vars);
        let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        let row = |name: &str| {
            rows.iter().find(|r| r[0] == name).unwrap_or_else(|| panic!("{name} in {table}"))[1..].to_vec()
        };
        assert_eq!(row("decoder.out"), ["[3,", "1000]", "2", "3,003"]);
        assert_eq!(row("encoder.0"), ["2", "8"]);
        assert_eq!(row("prior"), ["1", "5"]);
        assert_eq!(row("whole"), ["5", "3,016"]);
    }
}
