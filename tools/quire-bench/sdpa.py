"""Times PyTorch's attention in f16 on decode shapes: the fastest of its backends, q heads of a KV head
folded into query rows or left to enable_gqa. Prints a JSON object; key: BxL:heads."""
import json, sys, torch
from torch.nn.attention import sdpa_kernel, SDPBackend
import torch.nn.functional as F

def timed(run, copies, reps=20, rounds=7):
    for i in range(copies): run(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        for i in range(2): run(i % copies)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for i in range(reps): run(i % copies)
    times = []
    for _ in range(rounds + 1):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); graph.replay(); b.record(); torch.cuda.synchronize()
        times.append(a.elapsed_time(b) * 1000 / reps)
    return sorted(times[1:])[rounds // 2]

def shape(batch, length, q_heads, kv_heads, dim, queries=1):
    size = 2 * batch * kv_heads * length * dim * 2
    copies = max(1, min(8, (400 << 20) // size + 1))
    g = torch.Generator(device="cuda").manual_seed(1)
    rnd = lambda *s: torch.randn(*s, device="cuda", dtype=torch.float16, generator=g)
    kv = [(rnd(batch, kv_heads, length, dim), rnd(batch, kv_heads, length, dim)) for _ in range(copies)]
    q = rnd(batch, q_heads, queries, dim)
    out = {}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        for fold in (True, False):
            if fold and queries != 1: continue
            qq = q.view(batch, kv_heads, q_heads // kv_heads, dim) if fold else q
            causal = queries == length
            def run(i):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(qq, kv[i][0], kv[i][1], enable_gqa=not fold, is_causal=causal)
            try:
                out[name + ("-folded" if fold else "")] = timed(run, copies)
            except Exception as e:
                out[name + ("-folded" if fold else "")] = None
    best = min(v for v in out.values() if v)
    out["best_us"] = best
    out["TBs"] = size / best / 1e6
    return out

result = {}
for text in sys.argv[1].split(","):
    bl, heads, dim, *rest = text.split(":")
    b, l = map(int, bl.split("x")); qh, kh = map(int, heads.split("/"))
    queries = int(rest[0]) if rest else 1
    try:
        result[text] = shape(b, l, qh, kh, int(dim), queries)
    except Exception as e:
        result[text] = {"error": str(e)[:200]}
print(json.dumps(result, indent=1))
