//! Where a command computes.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use lsgm_nn::gpu;

use crate::{Error, Result, terminal};

/// What to build for a GPU.
const BUILD: &str = "build it with `cargo build --release --features cuda` (README, \"On a GPU\")";

/// The device that the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first GPU, or the CPU where there is none.
    Auto,
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::Cuda(n)),
                None => Err("use auto, cpu, cuda or cuda:N with the number N of a GPU, such as cuda:0".to_owned()),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// Open the device.
    pub(crate) fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !gpu::is_built_in() => Ok(Device::Cpu),
            Self::Auto => cuda(0).or_else(|why| {
                terminal::notice(&format!("lsgm: computing on the CPU: {why}"));
                Ok(Device::Cpu)
            }),
            Self::Cuda(n) => cuda(n).map_err(|why| Error::usage(format!("--device {self}: {why}"))),
        }
    }
}

/// The GPU of a number, or why it cannot be used and what to do.
fn cuda(n: usize) -> Result<Device, String> {
    if !gpu::is_built_in() {
        return Err(format!("this lsgm was built for the CPU alone: {BUILD}, or use --device cpu"));
    }
    // The first kernels tell whether the driver takes what was compiled, beforehand and now.
    let tried = gpu::open(n).map_err(lsgm_core::Error::from).and_then(|device| {
        let one = (Tensor::zeros(1, DType::F32, &device)? + 1.0)?;
        let sum = (&one + lsgm_nn::ops::relu(&one)?)?.to_vec1::<f32>()?;
        if sum == [2.0] { Ok(device) } else { Err(lsgm_core::Error::contract("GPU", format!("1 + 1 gave {sum:?}"))) }
    });
    tried.map_err(|error| {
        let error = Error::from(error).to_string();
        match advice(&error) {
            Some(advice) => format!("{advice} (the driver says: {error})"),
            None => error,
        }
    })
}

/// What an error of the CUDA driver means to the user.
fn advice(error: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 8] = [
        ("CUDA_ERROR_NO_DEVICE", "no GPU is visible: is there one, and does CUDA_VISIBLE_DEVICES show it?"),
        ("CUDA_ERROR_INVALID_DEVICE", "there is no GPU of this number: `lsgm devices` lists them"),
        ("CUDA_ERROR_INSUFFICIENT_DRIVER", "the driver is older than the CUDA this lsgm was built with: update it"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "driver and kernel module differ: restart after an update of the driver"),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the driver is older than the nvcc this lsgm was built with: update it"),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", "this lsgm was built for another kind of GPU: set CUDA_COMPUTE_CAP and build"),
        ("CUDA_ERROR_DEVICE_UNAVAILABLE", "another process holds the GPU for itself: wait for it, or use another GPU"),
        ("CUDA_ERROR_OUT_OF_MEMORY", "the GPU's memory is full: `lsgm devices` says what other processes leave"),
    ];
    KNOWN.iter().find(|(name, _)| error.contains(name)).map(|(_, advice)| *advice)
}

/// What CUDA and its libraries say when there is no memory left.
const FULL: [&str; 3] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"];

/// What follows an error of a command that computes, where the GPU's memory was too small for it.
pub(crate) fn memory_advice(error: &str) -> Option<String> {
    if !FULL.iter().any(|name| error.contains(name)) {
        return None;
    }
    let gpus = (0..gpu::count().unwrap_or(0)).filter_map(|i| Some((i, gpu::gpu(i).ok()?)));
    let state = gpus.fold(String::new(), |text, (i, gpu)| {
        let [held, free, total] = [gpu.held, gpu.free + gpu.kept, gpu.total].map(|bytes| bytes / 1_000_000);
        format!("{text}cuda:{i}: tensors held {held} MB when the next found no room, {free} of {total} MB are free; ")
    });
    Some(format!(
        "{state}less memory is taken with --set train.recompute=true, train.precision=bf16, train.accumulate=2 or more, \
         train.resident=false, a smaller train.batch_size, sample.batch_size or evaluate.batch_size"
    ))
}

/// `lsgm devices`: what there is to compute with, and why there is no more.
pub(crate) fn list() -> Result<()> {
    let threads = rayon::current_num_threads();
    let instructions = lsgm_nn::InstructionSet::selected();
    terminal::print(&format!("cpu       {threads} threads, {instructions:?}\n"))?;
    let none = |why: String| terminal::print(&format!("cuda      none: {why}\n"));
    if !gpu::is_built_in() {
        return none(format!("this lsgm was built for the CPU alone; {BUILD}"));
    }
    let told = |why: String| advice(&why).map_or_else(|| why.clone(), |advice| format!("{advice} ({why})"));
    match gpu::count() {
        Err(why) => none(told(why)),
        Ok(0) => none("the driver shows no GPU; does CUDA_VISIBLE_DEVICES hide it?".to_owned()),
        Ok(count) => (0..count).try_for_each(|i| {
            let line = match gpu::gpu(i) {
                Ok(gpu) => {
                    let (gigabytes, (major, minor)) = (|bytes: usize| bytes as f64 / 1e9, gpu.capability);
                    let (name, free, total) = (&gpu.name, gigabytes(gpu.free), gigabytes(gpu.total));
                    format!("{name}, {free:.1} of {total:.1} GB free, capability {major}.{minor}")
                }
                Err(why) => told(why),
            };
            terminal::print(&format!("cuda:{i}    {line}\n"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["gpu", "cuda:", "cuda:-1", "CPU", "cuda:first"] {
            assert!(wrong.parse::<DeviceChoice>().unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }

    #[test]
    fn what_the_driver_says_is_told_with_what_to_do() {
        let said = "DriverError(CUDA_ERROR_INSUFFICIENT_DRIVER, \"CUDA driver version is insufficient\")";
        assert!(advice(said).unwrap().contains("update it"));
        assert_eq!(advice("shapes differ"), None);
        assert_eq!(memory_advice(said), None);
        assert!(memory_advice("DriverError(CUDA_ERROR_OUT_OF_MEMORY)").unwrap().contains("train.accumulate"));
    }

    #[test]
    fn a_program_for_the_cpu_says_how_to_get_another() {
        if gpu::is_built_in() {
            return;
        }
        let message = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        assert!(message.contains("--device cuda:1") && message.contains("--features cuda"), "{message}");
        assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
    }
}
