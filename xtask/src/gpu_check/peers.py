"""PyTorch's side of the rows that the benches measured on the GPU.

`peers.py RESULTS` reads the rows, their shapes and types from the CSV files there and writes
`peers.csv`. Every run is timed by device events with the L2 flushed before it; the median counts.
Each row is computed as PyTorch does it best: SDPA with the same scale and no mask, addmm for low-rank
products, fused optimizer steps. Gradients are those that our row computes and no others; what PyTorch has
to prepare once (rows of keys repeated for the queries that share them) is not timed.
"""

import csv
import pathlib
import re
import statistics
import sys

import torch
import torch.nn.functional as F

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
RUNS = 30
flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")


def median_ns(run):
    for _ in range(5):
        run()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e6)
    return statistics.median(times)


def numbers(shape):
    return [int(n) for n in re.findall(r"\d+", shape)]


def normal(*shape, dtype, grad=False):
    return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=grad)


def both_ways(forward, inputs, backward):
    """The forward pass, or the gradients of `inputs` from a gradient of ones."""
    if not backward:
        def run():
            with torch.no_grad():
                forward()
        return run
    out = forward()
    ones = torch.ones_like(out)
    return lambda: torch.autograd.grad(out, inputs, ones, retain_graph=True)


def attention(shape, dtype, backward):
    queries, q_len, keys, k_len, width, heads = numbers(shape)
    q = normal(queries, q_len, width, dtype=dtype, grad=backward)
    k, v = (normal(queries, k_len, width, dtype=dtype, grad=backward) for _ in range(2))
    split = lambda x: x.view(x.shape[0], x.shape[1], heads, width // heads).transpose(1, 2)
    forward = lambda: F.scaled_dot_product_attention(split(q), split(k), split(v))
    return both_ways(forward, (q, k, v), backward)


def gated_query(shape, dtype, backward):
    rows, width = numbers(shape)
    ffn = normal(rows, width, dtype=dtype)
    h = [normal(rows, width, dtype=dtype, grad=backward) for _ in range(2)]
    vectors = [normal(width, dtype=dtype, grad=backward) for _ in range(4)]
    gates = [normal(1, dtype=dtype, grad=backward) for _ in range(2)]

    def forward():
        out = ffn
        for branch in range(2):
            scale, shift = vectors[2 * branch:2 * branch + 2]
            out = out + torch.tanh(gates[branch]) * torch.addcmul(shift, h[branch], scale)
        return out
    return both_ways(forward, (*h, *vectors, *gates), backward)


def layer_norm(shape, dtype, backward):
    rows, width = numbers(shape)
    x = normal(rows, width, dtype=dtype, grad=backward)
    weight, bias = (normal(width, dtype=dtype) for _ in range(2))
    return both_ways(lambda: F.layer_norm(x, (width,), weight, bias, 1e-6), (x,), backward)


def gelu(shape, dtype, backward):
    x = normal(*numbers(shape), dtype=dtype, grad=backward)
    return both_ways(lambda: F.gelu(x), (x,), backward)


def soft_cross_entropy(shape, dtype, backward):
    rows, classes = numbers(shape)
    x = normal(rows, classes, dtype=dtype, grad=backward)
    targets = normal(rows, classes, dtype=dtype).square() / classes
    return both_ways(lambda: F.cross_entropy(x, targets, reduction="none"), (x,), backward)


def parameters(shape):
    """As many tensors as the adapter has, with its number of values."""
    values, count = numbers(shape)
    sizes = [values // count] * (count - 1)
    return [normal(n, dtype=torch.float32) for n in (*sizes, values - sum(sizes))]


def adamw(shape, dtype, backward):
    params = parameters(shape)
    for param in params:
        param.requires_grad_()
        param.grad = torch.ones_like(param)
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=0.05, fused=True).step


def average(shape, dtype, backward):
    averages, live = parameters(shape), parameters(shape)
    return lambda: torch._foreach_lerp_(averages, live, 0.005)


def reconstruct(shape, dtype, backward):
    count, out, inputs, rank = numbers(shape.replace("N=", "").replace("R=", ""))
    weights = normal(count, out, inputs, dtype=dtype)
    u, v = normal(inputs, rank, dtype=dtype), normal(out, rank, dtype=dtype)
    s = normal(count, rank, dtype=dtype)
    u_t = u.t().expand(count, rank, inputs)
    return lambda: torch.baddbmm(weights, v * s[:, None, :], u_t)


def linear_shape(shape):
    tokens, inputs, outputs, rank = numbers(shape.replace("->", " "))
    return tokens, inputs, outputs, rank


def low_rank(shape, dtype, backward):
    tokens, inputs, outputs, rank = linear_shape(shape)
    x, y = normal(tokens, inputs, dtype=dtype), normal(tokens, outputs, dtype=dtype)
    a, b = normal(rank, inputs, dtype=dtype) / inputs, normal(outputs, rank, dtype=dtype)
    return lambda: y.addmm_(x @ a.t(), b.t())


def factor_gradient(shape, dtype, backward):
    tokens, inputs, outputs, rank = linear_shape(shape)
    x, dy = normal(tokens, inputs, dtype=dtype), normal(tokens, outputs, dtype=dtype)
    u, v = normal(inputs, rank, dtype=dtype), normal(outputs, rank, dtype=dtype)
    s = normal(rank, dtype=dtype)

    def run():
        z, g = x @ u, dy @ v
        return x.t() @ (g * s), dy.t() @ (z * s), (z * g).sum(0)
    return run


def main():
    results = pathlib.Path(sys.argv[1])
    wrong = 0
    with open(results / "peers.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["name", "type", "median_ns"])
        for path in sorted(results.glob("*.csv")):
            if path.name == "peers.csv":
                continue
            for row in csv.DictReader(open(path, newline="")):
                operation = row["name"].rsplit("/", 1)[1]
                backward = operation.endswith("_backward")
                make = globals().get(operation.removesuffix("_backward"))
                if make is None:
                    continue
                try:
                    ns = median_ns(make(row["shape"], TYPES[row["type"]], backward))
                except Exception as error:
                    print(f"{row['name']} {row['type']}: {error}", file=sys.stderr)
                    wrong = 1
                    continue
                out.writerow([row["name"], row["type"], round(ns)])
                file.flush()
    sys.exit(wrong)


if __name__ == "__main__":
    main()
