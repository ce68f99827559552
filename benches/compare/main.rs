//! The Rust side of the comparison with PyTorch; `compare.py` starts it and asks for measurements.
//!
//! It reads one request a line, `{"row": {..}, "what": "time", "seconds": 0.3}` or `{"row": {..}, "what": "memory"}`,
//! and answers `{"value": ..}` with the median milliseconds of a call, or with the MiB by which the peak of this
//! process's memory exceeds that before its first row. `pytorch.py` speaks the same language.

mod networks;
mod placement;
mod resnet;
mod rows;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use lsgm::nn::Awake;
use lsgm::{Error, Result};
use serde::Deserialize;
use serde_json::json;

/// The allocator of the `lsgm` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set by `compare.py` to what the `lsgm` binary sets itself.
const SETTINGS: [&str; 3] = ["CANDLE_BARRIER_POOL_SPIN_LIMIT", "MIMALLOC_PURGE_DELAY", "RAYON_NUM_THREADS"];

#[derive(Deserialize)]
struct Request {
    row: serde_json::Value,
    what: What,
    #[serde(default)]
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Time,
    Memory,
}

fn main() {
    if let Some(missing) = SETTINGS.iter().find(|name| std::env::var_os(name).is_none()) {
        eprintln!("{missing} is not set: run benches/compare/compare.py, which starts this program");
        return;
    }
    join_pool();
    let mut rows = HashMap::new();
    for line in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
        let answer = match answer(&line, &mut rows) {
            Ok(value) => json!({ "value": value }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
        if std::io::stdout().flush().is_err() {
            return;
        }
    }
}

/// Make this thread one of the pool's, as the `lsgm` binary does.
fn join_pool() {
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    if let Err(error) = pool.build_global() {
        eprintln!("the main thread stays outside the thread pool: {error}");
    }
}

/// Rows that were built already, by their description.
type Built = HashMap<String, rows::Step>;

fn answer(line: &str, built: &mut Built) -> Result<f64> {
    let wrong = |e: serde_json::Error| Error::contract("request", e.to_string());
    let request: Request = serde_json::from_str(line).map_err(wrong)?;
    let before = memory("VmRSS");
    let key = request.row.to_string();
    if !built.contains_key(&key) {
        let row: rows::Row = serde_json::from_value(request.row).map_err(wrong)?;
        built.insert(key.clone(), row.build()?);
    }
    let step = built.get_mut(&key).ok_or_else(|| Error::contract("request", "a row was lost"))?;
    match request.what {
        What::Time => time(step, Duration::from_secs_f64(request.seconds)),
        What::Memory => {
            for _ in 0..3 {
                placement::call(step)?;
            }
            Ok(placement::gpu_memory()?.unwrap_or(memory("VmHWM") - before))
        }
    }
}

/// Median milliseconds of a call, after one that is not counted.
fn time(step: &mut rows::Step, at_least: Duration) -> Result<f64> {
    // The threads of PyTorch's pool look for work between its operations, too.
    let _awake = Awake::new();
    placement::call(step)?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed() < at_least {
        let call = Instant::now();
        placement::call(step)?;
        times.push(call.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// A number of `/proc/self/status` in MiB; NaN where there is no such file.
fn memory(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}
