//! Dispatches `cargo xtask COMMAND` to the module of that name.

#![allow(clippy::print_stderr, reason = "a chore talks to whoever started it")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check that has to hold before a change lands; `--quick` for those between two edits.
    Ci(xtask::ci::CiArgs),
    /// Check what the compiler does not: dependency direction, module documentation, stray prints,
    /// commands in the documentation, licenses.
    Tidy(xtask::tidy::TidyArgs),
    /// Compile the CUDA kernels, with the machine's nvcc or the pinned one from pip, into target/kernels.
    BuildKernels(xtask::build_kernels::BuildKernelsArgs),
    /// Generate the Rust side of the kernel launch parameters from their header.
    Bindings(xtask::bindings::BindingsArgs),
    /// Mutation-test the kernels: plant bugs and demand that a test catches each.
    Mutate(xtask::mutate::MutateArgs),
    /// Pack the publishable crates without building them and print the size of each.
    Package(xtask::package::PackageArgs),
    /// Rebuild the images and the vocabulary that aurora-data embeds, from their packages.
    Pack(xtask::pack::PackArgs),
    /// Compute the teacher features of the pretraining, from two networks in Python packages.
    Teachers(xtask::teachers::TeachersArgs),
    /// Compare our numbers and tokens with Python's transformers, peft and tokenizers.
    Interop(xtask::interop::InteropArgs),
    /// Benchmark time and memory of whole passes of BLIP-base against PyTorch, in turn on this machine.
    BenchPeers(xtask::bench_peers::BenchPeersArgs),
    /// Benchmark the loader against a PyTorch DataLoader, and the shard reader against plain reading.
    BenchLoader(xtask::bench_loader::BenchLoaderArgs),
    /// Generate the tables of docs/results.md from the records in benches/results.
    Results(xtask::results::ResultsArgs),
    /// Generate the tables of docs/configuration.md from the schema of the configuration.
    Configuration(xtask::configuration::ConfigurationArgs),
    /// Name the derivations in docs/math to reread because their code has changed, or accept it.
    Derivations(xtask::derivations::DerivationsArgs),
    /// Make a folder that checks and measures the kernels on a machine with a GPU and no Rust, and run here what can
    /// be.
    GpuCheck(xtask::gpu_check::GpuCheckArgs),
    /// Make CUDA stub libraries: a program linked to them starts on every machine and loads the real ones when needed.
    CudaStubs(xtask::stubs::StubsArgs),
    /// Compile every embedded kernel source with NVRTC, installed with pip where there is none.
    Nvrtc(xtask::nvrtc::NvrtcArgs),
}

fn main() -> ExitCode {
    let done = run(&Arguments::parse().command);
    if let Err(error) = &done {
        eprintln!("error: {error:#}");
    }
    ExitCode::from(u8::from(done.is_err()))
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Ci(arguments) => xtask::ci::run(arguments),
        Command::Tidy(arguments) => xtask::tidy::run(arguments),
        Command::BuildKernels(arguments) => xtask::build_kernels::run(arguments),
        Command::Bindings(arguments) => xtask::bindings::run(arguments),
        Command::Mutate(arguments) => xtask::mutate::run(arguments),
        Command::Pack(arguments) => xtask::pack::run(arguments),
        Command::Teachers(arguments) => xtask::teachers::run(arguments),
        Command::Interop(arguments) => xtask::interop::run(arguments),
        Command::BenchPeers(arguments) => xtask::bench_peers::run(arguments),
        Command::BenchLoader(arguments) => xtask::bench_loader::run(arguments),
        Command::Results(arguments) => xtask::results::run(arguments),
        Command::Configuration(arguments) => xtask::configuration::run(arguments),
        Command::Derivations(arguments) => xtask::derivations::run(arguments),
        Command::Nvrtc(arguments) => xtask::nvrtc::run(arguments),
        Command::GpuCheck(arguments) => xtask::gpu_check::run(arguments),
        Command::CudaStubs(arguments) => xtask::stubs::run(arguments),
        Command::Package(arguments) => xtask::package::run(arguments),
    }
}
