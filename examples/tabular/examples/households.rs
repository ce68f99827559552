//! Draws the table `households.csv`: invented households whose columns depend on one another.
//!
//! ```sh
//! cargo run --release -p tabular --example households > examples/tabular/households.csv
//! ```

use lsgm::Rng;

const ROWS: usize = 6000;

/// One of `values` with the given weights.
fn pick<'a>(rng: &mut Rng, values: &[&'a str], weights: &[f64]) -> &'a str {
    let mut left = rng.uniform() * weights.iter().sum::<f64>();
    let chosen = weights.iter().position(|w| {
        left -= w;
        left < 0.0
    });
    values[chosen.unwrap_or(values.len() - 1)]
}

fn household(rng: &mut Rng) -> [&'static str; 8] {
    let region = pick(rng, &["city", "suburb", "village"], &[5.0, 3.0, 2.0]);
    let (flat, house) = match region {
        "city" => (0.85, 0.15),
        "suburb" => (0.4, 0.6),
        _ => (0.1, 0.9),
    };
    let dwelling = pick(rng, &["flat", "house"], &[flat, house]);
    let size = if dwelling == "flat" { [5.0, 3.0, 1.0, 0.5] } else { [1.0, 3.0, 2.0, 3.0] };
    let people = pick(rng, &["1", "2", "3", "4+"], &size);
    let school = if matches!(people, "3" | "4+") { 0.75 } else { 0.03 };
    let children = pick(rng, &["yes", "no"], &[school, 1.0 - school]);
    let income = pick(rng, &["low", "middle", "high"], if people == "1" { &[5.0, 4.0, 1.0] } else { &[2.0, 5.0, 3.0] });
    let cars = match (region, income) {
        ("city", "low") => [8.0, 2.0, 0.0],
        ("city", _) => [5.0, 3.0, 2.0],
        (_, "high") => [0.5, 3.5, 6.0],
        _ => [1.0, 8.0, 1.0],
    };
    let car = pick(rng, &["none", "petrol", "electric"], &cars);
    let heating = match (dwelling, income) {
        ("flat", _) => [6.0, 3.5, 0.5],
        (_, "high") => [0.5, 2.0, 7.5],
        _ => [0.5, 7.0, 2.5],
    };
    let heating = pick(rng, &["district", "gas", "heat pump"], &heating);
    let pets = match (dwelling, children) {
        ("house", "yes") => [2.0, 3.0, 5.0],
        ("house", _) => [5.0, 3.0, 2.0],
        _ => [8.0, 1.8, 0.2],
    };
    let pet = pick(rng, &["none", "cat", "dog"], &pets);
    [region, dwelling, people, children, income, car, heating, pet]
}

fn main() {
    let mut rng = Rng::new(2021);
    println!("region,dwelling,people,children,income,car,heating,pet");
    for _ in 0..ROWS {
        println!("{}", household(&mut rng).join(","));
    }
}
