# The last table: row | type | ours | PyTorch | ratio | roofline | numerics | sanitizer.
# Reads numerics.txt, sanitizer.txt, peers.csv where there is one, then the CSV files of the benches.
# Ratio: PyTorch's time by ours, above 1 where ours is ahead.

# The module of tests that holds a row's kernels, by the row's operation.
function module(row,   op) {
    op = row
    sub(/^.*\//, "", op)
    sub(/_backward$/, "", op)
    if (op ~ /^attention|^gated_query$|^layer_norm$|^gelu$/) return op
    if (op == "soft_cross_entropy") return "cross_entropy"
    if (op == "adamw" || op == "average") return "optim"
    if (op == "reconstruct" && row ~ /cp_64/) return "cp_reconstruct"
    if (op == "low_rank") return "cp_apply"
    if (op == "factor_gradient") return "cp_factor_gradient"
    return ""
}

# Fields of a CSV line; quotes around a field with commas, doubled within.
function fields(line, to,   n, c, i, quoted) {
    n = 1
    to[1] = ""
    for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (c == "\"") quoted = !quoted
        else if (c == "," && !quoted) to[++n] = ""
        else to[n] = to[n] c
    }
    return n
}

function readable(ns) {
    if (ns == "") return "-"
    ns += 0
    if (ns < 1e3) return sprintf("%.0f ns", ns)
    if (ns < 1e6) return sprintf("%.2f us", ns / 1e3)
    if (ns < 1e9) return sprintf("%.2f ms", ns / 1e6)
    return sprintf("%.2f s", ns / 1e9)
}

function print_row(a, b, c, d, e, f, g, h) {
    printf "%-38s | %-4s | %10s | %10s | %5s | %8s | %-12s | %s\n", a, b, c, d, e, f, g, h
}

FILENAME ~ /numerics.txt$/ { numerics[$2] = $1; next }
FILENAME ~ /sanitizer.txt$/ { sanitizer[$2] = $1; next }
FNR == 1 {
    delete column
    count = fields($0, head)
    for (i = 1; i <= count; i++) column[head[i]] = i
    if (!titled++) print_row("row", "type", "ours", "PyTorch", "ratio", "roofline", "numerics", "sanitizer")
    next
}
FILENAME ~ /peers.csv$/ {
    fields($0, f)
    peer[f[column["name"]] "/" f[column["type"]]] = f[column["median_ns"]]
    next
}
{
    fields($0, f)
    row = f[column["name"]]; type = f[column["type"]]; ours = f[column["median_ns"]]
    key = row "/" type
    of = module(row)
    checked = of == "" ? "bench" : (of in numerics ? numerics[of] : "-")
    # Without a GPU the row is the CPU path, and its kernels ran on the emulator.
    if (!gpu && of in numerics) checked = checked ", emulator"
    clean = of == "" ? "-" : (of in sanitizer ? sanitizer[of] : (gpu ? "not run" : "no GPU"))
    torch = key in peer ? readable(peer[key]) : (gpu ? "-" : "no GPU")
    ratio = key in peer ? sprintf("%.2f", peer[key] / ours) : "-"
    print_row(row, type, readable(ours), torch, ratio, sprintf("%.1f %%", 100 * f[column["share"]]), checked, clean)
}
