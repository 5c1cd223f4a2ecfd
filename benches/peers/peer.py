"""The PyTorch half of `cargo xtask bench-peers`: without torch.compile, in f32 or under the CPU's autocast.

    peer.py prepare OUT --sizes 224 384 --batches 4 8   writes models, LoRAs and inputs
    peer.py ceiling ...                                 prints GEMM throughput and versions
    peer.py work ROW OUT ...                            one row: a line of JSON when ready, one for each line `run`
    peer.py work ROW OUT ... --check FILE               instead, the tensors that our side has to agree with
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

import attention
import prepare
import rows


def peak_bytes():
    """Peak memory of this process since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak():
    """Resets the peak memory: reading the model is no part of a row; the model itself is."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # The peak is then that of reading too, which is only larger.


def say(**values):
    print(json.dumps(values), flush=True)


def serve(run):
    """Serves the chore: runs when told to, until told to end."""
    forget_peak()
    say(ready=True)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        start = time.perf_counter()
        run()
        say(seconds=time.perf_counter() - start)
    say(peak_bytes=peak_bytes())


def ceiling(precision):
    """GEMM throughput in operations per second, (2048, 1024) times (1024, 1024), the best of some."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2048, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * 2048 * 1024 * 1024 / best


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare")
    command.add_argument("out", type=Path)
    command.add_argument("--sizes", type=int, nargs="+", required=True)
    command.add_argument("--batches", type=int, nargs="*", default=[])  # rows of candidates have none
    command = commands.add_parser("ceiling")
    command.add_argument("--precision", choices=["f32", "bf16"], required=True)
    command = commands.add_parser("work")
    command.add_argument("row", choices=list(rows.ROWS))
    command.add_argument("out", type=Path)
    command.add_argument("--size", type=int, required=True)
    command.add_argument("--batch", type=int, required=True)
    command.add_argument("--precision", choices=["f32", "bf16"], required=True)
    command.add_argument("--attention", choices=["fused", "written"], required=True)
    command.add_argument("--check", type=Path)
    for command in commands.choices.values():
        command.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(5)
    if args.command == "prepare":
        return prepare.prepare(args.out, args.sizes, args.batches)
    if args.command == "ceiling":
        return say(operations=ceiling(args.precision),
                   versions=f"torch {torch.__version__} transformers {transformers.__version__} peft {peft.__version__}")
    if args.attention == "fused":
        attention.use_fused()
    run, check = rows.ROWS[args.row](rows.Setting(args.out, args.size, args.batch, args.precision))
    if args.check:
        return save_file(check(), args.check)
    return serve(run)


if __name__ == "__main__":
    main()
