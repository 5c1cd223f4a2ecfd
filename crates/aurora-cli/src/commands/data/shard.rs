//! `aurora data shard`: writes samples into tar shards.

use anyhow::Result;
use aurora_data::write::{ShardOptions, WriteReport, write};
use aurora_data::{Sample, SkipLog, source};
use aurora_train::progress::Progress as _;

use crate::args::ShardArgs;
use crate::output;
use crate::progress::ProgressDisplay;

/// Runs `aurora data shard`.
///
/// # Errors
/// A missing or broken input, an output folder that holds something else.
pub fn run(args: &ShardArgs) -> Result<()> {
    let samples = read(args)?;
    let options = ShardOptions {
        shard_bytes: args.max_shard_mb * 1_000_000,
        size: args.image_size.map(|size| size as usize),
        encoding: args.encoding,
        video: args.extract_frames.then(|| args.frame_sampling.of(args.num_frames as usize)),
        seed: args.seed,
        on_error: args.policy.on_error.into(),
        limit: args.policy.max_skipped,
        threads: args.threads,
    };
    let mut display = ProgressDisplay::new();
    let written = write(&samples, &args.out, &options, &mut |done, total| {
        display.on_part("samples", done, total);
    })?;
    tell(args, &written);
    Ok(())
}

/// Reads every sample of the inputs. Records skipped by the readers are reported here, later skips in the manifest.
fn read(args: &ShardArgs) -> Result<Vec<Sample>> {
    let skips = SkipLog::new(args.policy.on_error.into(), args.policy.max_skipped);
    let mut samples = Vec::new();
    for input in &args.inputs {
        samples.extend(source::read(input, &args.annotations.options(), &skips)?);
    }
    for skipped in skips.list() {
        output::note(&format!("left out: {skipped}"));
    }
    Ok(samples)
}

fn tell(args: &ShardArgs, WriteReport { manifest, kept, replaced }: &WriteReport) {
    let bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
    output::line(&format!(
        "{}: {} samples in {} shards, {}",
        args.out.display(),
        output::count(manifest.written()),
        output::count(manifest.shards.len() as u64),
        output::bytes(bytes)
    ));
    if *kept > 0 {
        output::line(&format!("{kept} of the shards were there already, whole"));
    }
    if *replaced > 0 {
        output::line(&format!("{replaced} were not what the manifest said, and were written anew"));
    }
    let skipped = manifest.skipped().count();
    if skipped > 0 {
        output::line(&format!("{skipped} samples were left out; manifest.json lists them:"));
        for skip in manifest.skipped().take(5) {
            output::line(&format!("  {skip}"));
        }
    }
}
