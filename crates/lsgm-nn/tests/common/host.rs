//! The kernels of a GPU on the CPU: compiled by the host's C++ compiler, run thread by thread. It shows what the kernels and the
//! code that launches them compute, not how fast they are.
#![allow(unsafe_code, dead_code)]

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use candle_core::{Result, bail};
use libloading::{Library, Symbol};
use lsgm_nn::device::{COMMON, Element, Launch, SOURCES, Source, THREADS, on_the_host};

/// A compiled kernel: arguments, their number, blocks.
type Kernel = unsafe extern "C" fn(*mut *mut c_void, u32, u32) -> i32;

fn name(source: &Source, element: Element) -> String {
    format!("{}_{element:?}", source.name.trim_end_matches(".cu"))
}

/// All sources in both types, each in a namespace, and a way into each kernel.
fn program() -> String {
    let mut program = format!("static const unsigned BLOCK = {THREADS};\n{}", include_str!("host.hpp"));
    for source in SOURCES {
        for element in [Element::F32, Element::Bf16] {
            let name = name(source, element);
            let definition = element.definition();
            let text = source.text;
            writeln!(program, "namespace {name} {{\n#undef BF16\n{definition}{COMMON}{text}\n}}").unwrap();
            for kernel in source.kernels {
                writeln!(
                    program,
                    "extern \"C\" int {name}_{kernel}(void **arguments, unsigned count, unsigned blocks) {{\n    \
                     return launch({name}::{kernel}, arguments, count, blocks);\n}}"
                )
                .unwrap();
            }
        }
    }
    program
}

/// The compiled program, or why there is none.
fn compiled() -> std::result::Result<Library, String> {
    let program = program();
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("kernels-{:016x}.so", hasher.finish()));
    if !library.exists() {
        let (source, unfinished) = (library.with_extension("cpp"), library.with_extension("unfinished"));
        std::fs::write(&source, &program).map_err(|e| format!("{}: {e}", source.display()))?;
        let mut command = Command::new("c++");
        command.args(["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-o"]).arg(&unfinished).arg(&source);
        let output = command.output().map_err(|e| format!("no C++ compiler `c++`: {e}"))?;
        assert!(output.status.success(), "the kernels do not compile: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&unfinished, &library).map_err(|e| format!("{}: {e}", library.display()))?;
    }
    // SAFETY: the library was made of this program; it runs nothing when it is loaded.
    unsafe { Library::new(&library) }.map_err(|e| format!("{}: {e}", library.display()))
}

fn library() -> &'static std::result::Result<Library, String> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(compiled)
}

/// Kernels that have been launched, as `source kernel`.
static LAUNCHED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The kernels that no test of this process has launched so far.
pub(crate) fn never_launched() -> Vec<String> {
    let launched = LAUNCHED.lock().unwrap();
    let all = SOURCES.iter().flat_map(|source| source.kernels.iter().map(|kernel| format!("{} {kernel}", source.name)));
    all.filter(|kernel| !launched.contains(kernel)).collect()
}

fn run(launch: &Launch) -> Result<()> {
    let Ok(library) = library() else { bail!("the kernels were not compiled") };
    let symbol = format!("{}_{}", name(launch.source, launch.element), launch.kernel);
    LAUNCHED.lock().unwrap().insert(format!("{} {}", launch.source.name, launch.kernel));
    // SAFETY: `program` has given every kernel a function of this type.
    let kernel: Symbol<'_, Kernel> = unsafe { library.get(&symbol) }.map_err(candle_core::Error::wrap)?;
    let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(|a| a.place()).collect();
    // SAFETY: the arguments outlive the call, and the addresses among them are those of tensors that the caller holds.
    match unsafe { kernel(arguments.as_mut_ptr(), arguments.len() as u32, launch.blocks) } {
        0 => Ok(()),
        1 => bail!("{symbol}: some threads ended while others waited for them"),
        _ => bail!("{symbol}: {} arguments are not what it takes", arguments.len()),
    }
}

/// Run `f` with every kernel of a GPU on the CPU, or say why that cannot be.
pub(crate) fn with_gpu_kernels<R>(f: impl FnOnce() -> R) -> Option<R> {
    if let Err(why) = library() {
        eprintln!("skipped: {why}");
        return None;
    }
    Some(on_the_host(run, f))
}
