//! Kernel resources reported by ptxas: registers, shared memory, stack, spills.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Resources of one kernel on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The kernel's symbol.
    pub symbol: String,
    /// The architecture, as in `sm_90a`.
    pub architecture: String,
    /// Registers per thread.
    pub registers: u32,
    /// Static shared memory per block in bytes; the dynamic part of a launch comes on top.
    pub shared: u32,
    /// Stack per thread in bytes, called functions included.
    pub stack: u32,
    /// Spill stores per thread in bytes, called functions included.
    pub spill_stores: u32,
    /// Spill loads per thread in bytes, called functions included.
    pub spill_loads: u32,
}

/// Parsed output of nvcc.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Every kernel for every architecture, in the order of the text.
    pub kernels: Vec<Resources>,
    /// Every other line, but for blank ones: warnings, and the source lines they quote.
    pub rest: Vec<String>,
}

/// Parses the output of `nvcc -Xptxas=-v`.
///
/// Functions that are called and not inlined follow the kernel that calls them; what they spill
/// counts as the kernel's.
///
/// # Errors
/// A line of ptxas whose numbers cannot be read.
pub fn parse(text: &str) -> Result<Said> {
    let mut said = Said::default();
    for line in text.lines() {
        if let Some(info) = line.strip_prefix("ptxas info") {
            let info = info.trim_start().trim_start_matches(':').trim_start();
            if let Some(named) = info.strip_prefix("Compiling entry function ") {
                let kernel = named_in(named).with_context(|| format!("no kernel in: {line}"))?;
                // Twice would count its spills twice.
                let same = |one: &Resources| {
                    (&one.symbol, &one.architecture) == (&kernel.symbol, &kernel.architecture)
                };
                ensure!(!said.kernels.iter().any(same), "ptxas compiled twice: {line}");
                said.kernels.push(kernel);
            } else if info.starts_with("Used ")
                && let Some(kernel) = said.kernels.last_mut()
            {
                kernel.registers = before(info, " registers")?;
                kernel.shared = optional(info, " bytes smem")?;
                kernel.stack = kernel.stack.max(optional(info, " bytes cumulative stack size")?);
            }
        } else if line.starts_with("    ") && line.contains(" bytes stack frame") {
            if let Some(kernel) = said.kernels.last_mut() {
                kernel.spill_stores += before(line, " bytes spill stores")?;
                kernel.spill_loads += before(line, " bytes spill loads")?;
                kernel.stack = kernel.stack.max(before(line, " bytes stack frame")?);
            }
        } else if !line.trim().is_empty() && !line.starts_with("Remark:") {
            said.rest.push(line.to_owned());
        }
    }
    Ok(said)
}

/// The kernel in `'symbol' for 'sm_80'`.
fn named_in(text: &str) -> Option<Resources> {
    let mut quoted = text.split('\'').skip(1).step_by(2).map(str::to_owned);
    let (symbol, architecture) = (quoted.next()?, quoted.next()?);
    Some(Resources { symbol, architecture, ..Resources::default() })
}

/// Number before `unit`.
fn before(line: &str, unit: &str) -> Result<u32> {
    let end = line.find(unit).with_context(|| format!("no{unit} in: {line}"))?;
    let digits = line[..end].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
    digits.parse().with_context(|| format!("no number before{unit} in: {line}"))
}

/// Number before `unit`, or 0 if the unit does not occur.
fn optional(line: &str, unit: &str) -> Result<u32> {
    if line.contains(unit) { before(line, unit) } else { Ok(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of nvcc 13.0.88 for a kernel that spills and calls a function.
    const SAID: &str = "\
a.cu(2): warning #177-D: variable \"unused\" was declared but never referenced
      int unused;
          ^

Remark: The warnings can be suppressed with \"-diag-suppress <warning-number>\"

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k_f64' for 'sm_80'
ptxas info    : Function properties for k_f64
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 264 bytes cumulative stack size, 1024 bytes smem, 364 bytes cmem[0]
ptxas info    : Compile time = 32.120 ms
ptxas info    : Function properties for _Z6helperPfi
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Compiling entry function 'k_f32' for 'sm_90a'
ptxas info    : Function properties for k_f32
    784 bytes stack frame, 556 bytes spill stores, 628 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
";

    #[test]
    fn every_kernel_has_its_numbers() {
        let said = parse(SAID).unwrap();
        let expected = |symbol: &str, architecture: &str, numbers: [u32; 5]| Resources {
            symbol: symbol.into(),
            architecture: architecture.into(),
            registers: numbers[0],
            shared: numbers[1],
            stack: numbers[2],
            spill_stores: numbers[3],
            spill_loads: numbers[4],
        };
        assert_eq!(
            said.kernels,
            [
                expected("k_f64", "sm_80", [40, 1024, 264, 4, 12]),
                expected("k_f32", "sm_90a", [32, 0, 784, 556, 628]),
            ]
        );
    }

    #[test]
    fn what_is_not_of_ptxas_is_kept() {
        let rest = parse(SAID).unwrap().rest;
        assert_eq!(rest.len(), 3, "{rest:?}");
        assert!(rest[0].starts_with("a.cu(2): warning #177-D"));
        let advice = "ptxas warning : Potential Performance Loss: wgmma is serialized\n";
        assert_eq!(parse(advice).unwrap().rest, [advice.trim_end()]);
    }

    #[test]
    fn a_line_that_changed_its_form_is_an_error_and_not_a_zero() {
        for line in [
            "ptxas info : Compiling entry function k for sm_80",
            "ptxas info : Compiling entry function 'k' for 'sm_80'\nptxas info : Used many registers",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let twice = "ptxas info : Compiling entry function 'k' for 'sm_80'\n".repeat(2);
        assert!(parse(&twice).unwrap_err().to_string().contains("twice"));
    }
}
