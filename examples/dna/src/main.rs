//! `lsgm` with a modality of its own, `modality = "dna"`.

mod dna;

/// Training frees and takes large buffers at every step; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: lsgm::Allocator = lsgm::Allocator;

fn main() -> std::process::ExitCode {
    lsgm::cli::main(lsgm::Registry::default().with::<dna::Dna>())
}
