#!/usr/bin/env bash
# Checks and measures the CUDA kernels on this machine, with what lies in this folder and nothing
# else: no Rust, no CUDA compiler. `./run.sh [RESULTS]`; README.txt says more.
#
# With a GPU: every kernel against the CPU's f64 references, compute-sanitizer over the same tests
# where it is found, the benches, and PyTorch beside them where python3 has torch. Without one: the
# tests on the emulator where there is a C++ compiler, the benches of the CPU path, and "no GPU" for
# the rest. The table comes last. Exits with 1 where anything is wrong.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=${1:-$here/results}
mkdir -p "$results" && results=$(cd "$results" && pwd) || exit 2
rm -f "$results"/*.csv "$results"/*.log "$results"/*.txt
failed=0
say() { printf '== %s\n' "$*"; }
wrong() {
    printf 'WRONG: %s\n' "$*"
    failed=1
}
# A word of what this folder was made from.
made() { sed -n "s/^$1: //p" "$here/versions.txt"; }

# Programs of this folder need a C library at least as new as the one they were linked against.
have=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
need=$(made glibc)
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" != "$need" ]; then
    echo "this machine has glibc ${have:-of unknown version}; the programs here need $need" >&2
    exit 2
fi

# NVRTC and cuBLAS come with PyTorch's packages where no toolkit is installed.
python=${PYTHON:-python3}
folders=$("$python" - 2>/dev/null <<'PYTHON'
import glob, os, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = (d for root in roots for d in glob.glob(os.path.join(root, "nvidia", "*", "lib")))
print(":".join(dict.fromkeys(found)))
PYTHON
)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${folders:-}

# A word is enough where a GPU is missing.
export RUST_BACKTRACE=0
export CRITERION_HOME=$results/criterion AURORA_BENCH_RESULTS=$results AURORA_BENCH_RECORD=1
AURORA_BENCH_COMMIT=$(made commit) AURORA_BENCH_RUSTC=$(made rustc)
export AURORA_BENCH_COMMIT AURORA_BENCH_RUSTC
export AURORA_KERNELS=$here/kernels AURORA_EMULATOR_CACHE=$results/emulator

reason=$(AURORA_BENCH_DEVICE=gpu "$here/bench/norm" --bench --list 2>&1 >/dev/null) && gpu=1 || gpu=0
if [ $gpu = 1 ]; then
    say "GPU: $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
    export AURORA_MACHINE=gpu AURORA_BENCH_DEVICE=gpu
else
    say "no GPU: ${reason#error: }"
    export AURORA_BENCH_DEVICE=cpu
fi

# numerics.txt: a line for each module of tests, its verdict first.
say "numerics of every kernel against the f64 references"
"$here/bin/kernels" kernels:: --nocapture >"$results/numerics.log" 2>"$results/numerics.err.log"
code=$?
awk '$1 == "test" && $3 == "..." {
    split($2, path, "::"); total[path[2]]++
    if ($4 ~ /^FAILED/) bad[path[2]]++
} END { for (m in total) print (bad[m] ? "WRONG" : "ok"), m, total[m] - bad[m] "/" total[m] }' \
    "$results/numerics.log" | sort -k 2 >"$results/numerics.txt"
if [ $gpu = 0 ] && grep -q '^skipped' "$results/numerics.err.log"; then
    say "no C++ compiler here, so there is no emulator either: numerics not run"
    sed -i 's/^ok/not-run/' "$results/numerics.txt"
fi
cat "$results/numerics.txt"
[ $code = 0 ] || wrong "the numerics (exit code $code): $results/numerics.log and numerics.err.log"

# sanitizer.txt: likewise, the worse of both tools.
: >"$results/sanitizer.txt"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
if [ $gpu = 1 ] && [ -n "$sanitizer" ]; then
    say "compute-sanitizer: memcheck and racecheck"
    while read -r _ module _; do
        verdict=ok
        for tool in memcheck racecheck; do
            log=$results/$tool.$module.log
            timeout 1200 "$sanitizer" --tool "$tool" --error-exitcode 86 \
                "$here/bin/kernels" "kernels::$module::" --test-threads 1 >"$log" 2>&1
            code=$?
            [ $code = 0 ] && continue
            verdict=WRONG
            [ $code = 124 ] && verdict=too-long
            wrong "$tool of $module (exit code $code): $log"
        done
        printf '%s %s\n' "$verdict" "$module" | tee -a "$results/sanitizer.txt"
    done <"$results/numerics.txt"
fi

# Every row is held to its reference before it is timed.
[ -n "${AURORA_FULL:-}" ] && how="" || how=--quick
for bench in "$here"/bench/*; do
    name=$(basename "$bench")
    say "bench $name"
    "$bench" --bench $how --noplot >"$results/bench.$name.log" 2>&1 ||
        wrong "bench $name: $(grep -a '^error' "$results/bench.$name.log" | head -n 1)"
    sed -n '/measured beside it/,/^$/p' "$results/bench.$name.log"
done

if [ $gpu = 1 ]; then
    if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>"$results/torch.log"; then
        say "PyTorch beside it"
        "$python" "$here/peers.py" "$results" || wrong "PyTorch's rows"
    else
        say "no PyTorch with CUDA: $(tail -n 1 "$results/torch.log")"
    fi
    if [ -x "$here/bin/aurora" ]; then
        say "the training quickstart on the GPU beside the CPU"
        for device in cpu cuda; do
            "$here/bin/aurora" quickstart --device $device --out "$results/quickstart.$device" \
                --set schedule.steps=10 --set schedule.warmup_steps=1 \
                --set schedule.eval_every=10 >"$results/quickstart.$device.log" 2>&1 ||
                wrong "the quickstart on $device: $results/quickstart.$device.log"
        done
        losses() { sed -n 's/.*"loss": *\([-+.0-9eE]*\).*/\1/p' "$results/quickstart.$1/metrics.jsonl"; }
        paste <(losses cpu) <(losses cuda) | awk '
            { d = $1 - $2; if (d < 0) d = -d; if (d > top) top = d; if (!(d <= 1e-3)) bad = 1 }
            END { printf "%d losses, largest difference %g\n", NR, top; exit bad || NR == 0 }' ||
            wrong "losses of the quickstart differ by more than 1e-3"
    fi
fi

say "the table"
awk -v gpu=$gpu -f "$here/table.awk" "$results/numerics.txt" "$results/sanitizer.txt" \
    $(ls "$results/peers.csv" 2>/dev/null) $(ls "$results"/*.csv 2>/dev/null | grep -v '/peers.csv$') |
    tee "$results/table.txt"
[ $gpu = 1 ] || echo "no GPU: nothing above ran on one"
[ $failed = 0 ] && echo "nothing is wrong" || echo "something is wrong: see above"
exit $failed
