//! Kernels for a GPU: their sources, and how one is launched.
//!
//! A source is written in the part of CUDA's C++ that a host compiler understands too, so that a test can run every kernel,
//! thread by thread, where there is no GPU ([`on_the_host`]).

mod accelerator;
#[cfg(feature = "cuda")]
mod cuda;
mod random;
#[cfg(feature = "cuda")]
mod upload;

use std::cell::Cell;
use std::ffi::c_void;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};

use self::accelerator::install;
#[cfg(feature = "cuda")]
pub(crate) use self::cuda::{compile_all, count, gpu, open, peak_memory};
pub(crate) use self::random::{drawing, drawing_threads};

/// Threads of a block, in every kernel.
pub const THREADS: u32 = 256;

/// A file with kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: &'static str,
    /// What it says, without [`COMMON`].
    pub text: &'static str,
    /// Its kernels.
    pub kernels: &'static [&'static str],
}

/// What every source begins with.
pub const COMMON: &str = include_str!("common.cu");

macro_rules! sources {
    ($($name:ident: $file:literal, [$($kernel:literal),* $(,)?];)*) => {
        $(pub(crate) static $name: Source =
            Source { name: $file, text: include_str!($file), kernels: &[$($kernel),*] };)*
        /// Every source.
        pub static SOURCES: &[&Source] = &[$(&$name),*];
    };
}

sources! {
    DEPTHWISE: "depthwise.cu", ["depthwise", "depthwise_data_gradient", "depthwise_weight_gradient"];
    NORM: "norm.cu", [
        "plane_moments", "set_moments", "normalise", "plane_slopes", "channel_slopes", "set_slopes", "norm_data_gradient",
    ];
    OPTIMIZER: "optimizer.cu", ["step", "squares", "root"];
    PLANES: "planes.cu", ["add_bias", "plane_sums", "plane_means", "gated", "gated_gradients", "snake", "snake_gradients"];
    POINTWISE: "pointwise.cu", ["apply", "apply_gradient"];
    RANDOM: "random.cu", ["uniforms", "dropout"];
    SPECTRAL: "spectral.cu", ["power_iteration"];
    ROWS: "rows.cu", [
        "row_norm", "row_norm_data_gradient", "gated_rows", "scaled_rows", "add_row", "column_sums", "column_totals", "softmax",
        "softmax_gradient", "weight_norm", "weight_norm_gradients", "embedding", "embedding_gradient",
    ];
}

/// The type of activations that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// Single precision.
    F32,
    /// bfloat16: the upper half of the bits of `f32`, rounded to the nearest.
    Bf16,
}

impl Element {
    /// That of activations of type `dtype`.
    pub(crate) fn of(dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::BF16 => Ok(Self::Bf16),
            _ => bail!("GPU kernels take f32 and bf16, not {dtype:?}"),
        }
    }

    /// What a source has to begin with, before [`COMMON`].
    pub fn definition(self) -> &'static str {
        match self {
            Self::F32 => "#define BF16 0\n",
            Self::Bf16 => "#define BF16 1\n",
        }
    }
}

/// What a kernel is given.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// Where elements lie, or 0.
    Address(u64),
    /// A number of 32 bits with a sign.
    Int(i32),
    /// A number of 32 bits without one.
    Word(u32),
    /// A number of 64 bits.
    Long(u64),
    /// A number in single precision.
    Float(f32),
}

impl Argument {
    /// Where the argument itself lies.
    pub fn place(&self) -> *mut c_void {
        match self {
            Self::Address(value) | Self::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Word(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

/// The largest size that a kernel is told.
const LARGEST: usize = (i32::MAX / 2) as usize - 4 * THREADS as usize;

/// A kernel with what it is given.
#[derive(Debug)]
pub struct Launch {
    /// Where it stands.
    pub source: &'static Source,
    /// Its name there.
    pub kernel: &'static str,
    /// The type of activations.
    pub element: Element,
    /// Blocks of [`THREADS`] threads.
    pub blocks: u32,
    /// In the order of its parameters.
    pub arguments: Vec<Argument>,
    /// Whether a size is beyond the numbers of a kernel.
    too_large: bool,
}

impl Launch {
    pub(crate) fn new(source: &'static Source, kernel: &'static str, element: Element) -> Self {
        Self { source, kernel, element, blocks: 0, arguments: Vec::with_capacity(16), too_large: false }
    }

    pub(crate) fn addresses(mut self, addresses: &[u64]) -> Self {
        self.arguments.extend(addresses.iter().copied().map(Argument::Address));
        self
    }

    /// Sizes, which kernels double and go beyond by a few turns.
    pub(crate) fn sizes(mut self, sizes: impl IntoIterator<Item = usize>) -> Self {
        for size in sizes {
            self.too_large |= size > LARGEST;
            self.arguments.push(Argument::Int(size as i32));
        }
        self
    }

    pub(crate) fn long(mut self, value: u64) -> Self {
        self.arguments.push(Argument::Long(value));
        self
    }

    pub(crate) fn words(mut self, words: impl IntoIterator<Item = u32>) -> Self {
        self.arguments.extend(words.into_iter().map(Argument::Word));
        self
    }

    pub(crate) fn numbers(mut self, numbers: impl IntoIterator<Item = f64>) -> Self {
        self.arguments.extend(numbers.into_iter().map(|n| Argument::Float(n as f32)));
        self
    }

    /// Put it into the stream of `device`, as so many blocks as `threads` threads need.
    ///
    /// The caller vouches for the arguments: they are those of the kernel, and every address is that of as many elements as
    /// the sizes imply. Addresses come from [`address`] and [`input`], which check that elements lie side by side; the public
    /// function of an op has checked all shapes.
    pub(crate) fn run(mut self, device: &Device, threads: usize) -> Result<()> {
        let blocks = i32::try_from(threads.div_ceil(THREADS as usize));
        let (Ok(blocks), false) = (blocks, self.too_large) else {
            bail!("{}: a tensor is too large for a kernel of a GPU", self.kernel)
        };
        self.blocks = blocks as u32;
        if blocks == 0 {
            return Ok(());
        }
        match (device, HOST.get()) {
            #[cfg(feature = "cuda")]
            (Device::Cuda(device), _) => cuda::run(device, &self),
            (Device::Cpu, Some(host)) => host(&self),
            _ => bail!("{}: no GPU to run on", self.kernel),
        }
    }
}

/// How many threads work on one run of `length` elements: a power of two, each thread with a few of them.
pub(crate) fn lanes(length: usize) -> usize {
    length.div_ceil(4).next_power_of_two().clamp(1, THREADS as usize)
}

/// What runs a kernel on the host, on tensors of the CPU.
pub type Host = fn(&Launch) -> Result<()>;

thread_local! {
    static HOST: Cell<Option<Host>> = const { Cell::new(None) };
}

/// Run `f` with the kernels that a GPU would run, launched by `host`, as [`crate::ops::without_kernels`] runs it with none. It
/// serves tests.
pub fn on_the_host<R>(host: Host, f: impl FnOnce() -> R) -> R {
    /// Ends when dropped, whatever happens.
    struct Outer(Option<Host>);
    impl Drop for Outer {
        fn drop(&mut self) {
            HOST.set(self.0);
        }
    }
    install();
    let _outer = Outer(HOST.replace(Some(host)));
    crate::ops::without_kernels(f)
}

/// Whether kernels of this module can be launched on `device`.
pub(crate) fn is_there(device: &Device) -> bool {
    device.is_cuda() || (device.is_cpu() && HOST.get().is_some())
}

/// Whether they take activations such as `x`.
pub(crate) fn serves(x: &Tensor) -> bool {
    is_there(x.device()) && Element::of(x.dtype()).is_ok() && x.elem_count() > 0
}

/// Whether they take parameters such as `x`.
pub(crate) fn serves_f32(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && serves(x)
}

/// Memory of a tensor for a kernel to write, which holds anything: on the CPU, where tests run, what no element may keep.
pub(crate) fn fresh(dims: impl Into<candle_core::Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    if device.is_cpu() {
        return Tensor::full(f64::NAN, dims, device)?.to_dtype(dtype);
    }
    // SAFETY: the kernel that it is made for writes every element before anybody reads one.
    unsafe { Tensor::empty(dims, dtype, device) }
}

/// [`fresh`] memory of a GPU as the output of a node.
#[cfg(feature = "cuda")]
pub(crate) fn fresh_storage(
    device: &candle_core::CudaDevice,
    shape: &candle_core::Shape,
    dtype: DType,
) -> Result<candle_core::CudaStorage> {
    use candle_core::backend::BackendDevice;
    // SAFETY: as in `fresh`.
    unsafe { device.alloc_uninit(shape, dtype) }
}

/// Where the elements of a contiguous tensor lie.
pub(crate) fn address(t: &Tensor) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => input(Memory::Cpu(storage), layout),
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => input(Memory::Cuda(storage), layout),
        _ => bail!("a kernel got a tensor of another device"),
    }
}

/// The memory of a tensor.
#[derive(Clone, Copy)]
pub(crate) enum Memory<'a> {
    Cpu(&'a CpuStorage),
    #[cfg(feature = "cuda")]
    Cuda(&'a candle_core::CudaStorage),
}

impl Memory<'_> {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Cpu(storage) => storage.dtype(),
            #[cfg(feature = "cuda")]
            Self::Cuda(storage) => storage.dtype(),
        }
    }
}

/// [`address`] by its parts.
pub(crate) fn input(memory: Memory<'_>, layout: &Layout) -> Result<u64> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!("a kernel got {:?}, whose elements do not lie side by side", layout.dims())
    };
    let base = match memory {
        Memory::Cpu(storage) => host_address(storage)?,
        #[cfg(feature = "cuda")]
        Memory::Cuda(storage) => cuda::address(storage)?,
    };
    Ok(base + (start * memory.dtype().size_in_bytes()) as u64)
}

fn host_address(storage: &CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::U8(v) => v.as_ptr() as u64,
        CpuStorage::U32(v) => v.as_ptr() as u64,
        CpuStorage::I64(v) => v.as_ptr() as u64,
        CpuStorage::BF16(v) => v.as_ptr() as u64,
        CpuStorage::F32(v) => v.as_ptr() as u64,
        CpuStorage::F64(v) => v.as_ptr() as u64,
        _ => bail!("a kernel got a type that it does not know"),
    })
}
