#!/usr/bin/env python3
"""The work of `cargo bench --bench steps`, and the pieces it is made of, in PyTorch.

It needs PyTorch only: the models are written out below, with random weights, and nothing is
downloaded. Weights and activations are f32 and products are exact f32 (no TF32) unless a row says
otherwise; there is no dropout. A step is the forward pass over both texts of each pair, the
Bradley-Terry loss of the scores at the last tokens, the backward pass, clipping of the global
gradient norm and fused AdamW. Everything is measured eagerly; steps also under bf16 autocast,
compiled, and, like the small work, replayed as a CUDA graph, where the host's time drops out.
Small work is timed by CUDA events, steps by synchronised wall time; medians count.

A row that fails says why, and the others go on.
"""

import argparse
import gc
import json
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    """A reward model, and the batch that it learns from."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    pairs: int
    llama: bool = False
    tokens: int = 128


STEPS = {
    "gpt2-small-4x256 reward, prompts apart": Shape(4, 256, 4, 4, 1024, 8192, pairs=8),
    "gpt2-124m reward, prompts apart": Shape(12, 768, 12, 12, 3072, 50257, pairs=2),
    "smollm2-135m reward, prompts apart": Shape(30, 576, 9, 3, 1536, 49152, pairs=1, llama=True),
}
GPT2 = STEPS["gpt2-124m reward, prompts apart"]


class Block(nn.Module):
    """A layer of GPT-2 or of Llama, with one product for queries, keys and values, and one for gate
    and up."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.head_width = shape, shape.width // shape.heads
        bias = not shape.llama
        kv_width = shape.kv_heads * self.head_width
        norm = partial(nn.RMSNorm if shape.llama else nn.LayerNorm, shape.width, eps=1e-5)
        self.sizes = [shape.width, kv_width, kv_width]
        self.attention_norm, self.mlp_norm = norm(), norm()
        self.qkv = nn.Linear(shape.width, sum(self.sizes), bias=bias)
        self.attention_output = nn.Linear(shape.width, shape.width, bias=bias)
        self.up = nn.Linear(shape.width, (2 if shape.llama else 1) * shape.inner, bias=bias)
        self.down = nn.Linear(shape.inner, shape.width, bias=bias)

    def forward(self, x, rotate):
        split = self.qkv(self.attention_norm(x)).split(self.sizes, -1)
        q, k, v = (part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in split)
        if self.shape.llama:
            q, k = rotate(q), rotate(k)
        if (groups := self.shape.heads // self.shape.kv_heads) > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_output(attended.transpose(1, 2).flatten(2))
        up = self.up(self.mlp_norm(x))
        if self.shape.llama:
            gate, up = up.chunk(2, -1)
            return x + self.down(F.silu(gate) * up)
        return x + self.down(F.gelu(up, approximate="tanh"))


class RewardModel(nn.Module):
    """Transformer without a language head, and a score at the last token."""

    def __init__(self, shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = None if shape.llama else nn.Embedding(1024, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        norm = nn.RMSNorm if shape.llama else nn.LayerNorm
        self.norm = norm(shape.width, eps=1e-5)
        self.score = nn.Linear(shape.width, 1, bias=False)
        head_width = shape.width // shape.heads
        frequencies = 100_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
        angles = torch.outer(torch.arange(shape.tokens), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x):
        left, right = x.chunk(2, -1)
        return x * self.cos + torch.cat([-right, left], -1) * self.sin

    def forward(self, ids):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x, self.rotate)
        return self.score(self.norm(x)[:, -1])


def adamw(model):
    """AdamW as prefgrad has it: biases and norms do not decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    cuda = parameters[0].is_cuda
    return torch.optim.AdamW(groups, lr=1e-5, fused=True, capturable=cuda)


def make_step(shape, device, autocast=False, compiled=False):
    """A function that makes one update of a new model."""
    with device:
        model = RewardModel(shape)
        ids = torch.randint(3, shape.vocabulary, (2 * shape.pairs, shape.tokens))
    half = shape.tokens // 2
    ids[shape.pairs :, :half] = ids[: shape.pairs, :half]
    optimizer = adamw(model)

    def loss_of(ids):
        chosen, rejected = model(ids).float().chunk(2)
        return -F.logsigmoid(chosen - rejected).mean()

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)

    def update():
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = loss_of(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def make_copy(mib, device):
    source = torch.ones(mib << 18, device=device)
    return partial(torch.empty_like(source).copy_, source)


def make_product(form, m, k, n, dtype, device):
    """The product of m x k and k x n, where T stands for a matrix that is stored transposed."""
    a = torch.randn((k, m) if form[0] == "t" else (m, k), device=device).to(dtype)
    b = torch.randn((n, k) if form[1] == "t" else (k, n), device=device).to(dtype)
    a, b = (a.t() if form[0] == "t" else a), (b.t() if form[1] == "t" else b)
    return partial(torch.mm, a, b, out=torch.empty(m, n, dtype=dtype, device=device))


def both_ways(forward, *sizes, device):
    """Forward and backward pass of a function of random tensors."""
    inputs = [torch.randn(size, device=device, requires_grad=True) for size in sizes]
    gradient = torch.randn_like(forward(*inputs).detach())
    return lambda: torch.autograd.grad(forward(*inputs), inputs, gradient)


def make_adamw(shape, device):
    with device:
        model = RewardModel(shape)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return adamw(model).step


def kernels(device, quick):
    """Work of the size of one kernel or two, as functions that prepare it, by name."""
    rows, logits, vocabulary, batch, tokens = 8192, 2048, 50257, 8, 1024
    if quick:
        rows, logits, vocabulary, batch, tokens = 256, 64, 1000, 1, 64
    ids = torch.randint(vocabulary, (logits,), device=device)
    both = partial(both_ways, device=device)

    def logprob(x):
        return torch.log_softmax(x, -1).gather(1, ids[:, None])

    def cross_entropy(x):
        return F.cross_entropy(x, ids, reduction="none")

    def attention(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    qkv = [(batch, 12, tokens, 64)] * 3
    optimized = replace(GPT2, layers=1, vocabulary=1000) if quick else GPT2
    return {
        f"LayerNorm {rows}x768, both ways": partial(
            both, lambda x, w, b: F.layer_norm(x, (768,), w, b), (rows, 768), (768,), (768,)
        ),
        f"log-softmax and gather {logits}x{vocabulary}, both ways": partial(
            both, logprob, (logits, vocabulary)
        ),
        f"the same by cross_entropy {logits}x{vocabulary}, both ways": partial(
            both, cross_entropy, (logits, vocabulary)
        ),
        f"causal attention {batch}x12x{tokens}x64, both ways": partial(both, attention, *qkv),
        f"GELU (tanh) {rows}x3072, both ways": partial(
            both, partial(F.gelu, approximate="tanh"), (rows, 3072)
        ),
        f"fused AdamW, GPT-2 of {optimized.layers} layers": partial(make_adamw, optimized, device),
    }


def graphed(work):
    """A replay of what `work` asks of the GPU; `work` must outlive it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


class Bench:
    """Measures, prints a row as soon as it is known, and keeps the figures for `--json`."""

    def __init__(self, args):
        self.device, self.json = torch.device(args.device), args.json
        self.cuda = self.device.type == "cuda"
        self.samples, self.sample_seconds = (2, 0.0) if args.quick else (15, 0.005)
        self.warm_ups, self.updates = (1, 2) if args.quick else (5, 20)
        self.results = {"torch": torch.__version__, "device": self.describe(), "groups": {}}
        print(f"{self.results['device']}, torch {torch.__version__}", flush=True)

    def describe(self):
        if not self.cuda:
            return f"CPU, {torch.get_num_threads()} threads"
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
            driver = output.stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            driver = "unknown"
        name = torch.cuda.get_device_name(self.device)
        return f"{name}, driver {driver}, CUDA {torch.version.cuda}"

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()

    def wall(self, work):
        """Seconds of one call from start to end."""
        self.synchronize()
        begun = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begun

    def median(self, work):
        """Seconds of a call among many: a sample is long enough for its events not to count."""
        for _ in range(3):
            work()
        calls = max(1, int(self.sample_seconds / self.wall(work)))

        def repeat():
            for _ in range(calls):
                work()

        if not self.cuda:
            return statistics.median(self.wall(repeat) for _ in range(self.samples)) / calls
        events = [torch.cuda.Event(enable_timing=True) for _ in range(self.samples + 1)]
        events[0].record()
        for event in events[1:]:
            repeat()
            event.record()
        torch.cuda.synchronize()
        times = [begun.elapsed_time(ended) for begun, ended in zip(events, events[1:])]
        return statistics.median(times) / 1000 / calls

    def small(self, make, graph=False, amount=0, unit=None):
        """Figures of short work, with a rate where there is an amount of something."""
        work = make()
        seconds = self.median(graphed(work) if graph else work)
        return {"ms": 1e3 * seconds} | ({unit: amount / seconds} if amount else {})

    def step(self, make, graph=False):
        """Figures of a whole update; the first one has all preparation and compilation in it."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        update = make()
        figures = {"first s": self.wall(update)}
        run = graphed(update) if graph else update
        for _ in range(self.warm_ups):
            self.wall(run)
        figures["ms"] = 1e3 * statistics.median(self.wall(run) for _ in range(self.updates))
        if self.cuda:
            figures["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
        return figures

    def group(self, title, columns, rows):
        """Measures the rows, functions that return figures by column."""
        results = self.results["groups"][title] = {}
        width = max(map(len, [title, *rows]))
        print(f"\n{title:{width}}" + "".join(f"{column:>11}" for column in columns), flush=True)
        for name, measure in rows.items():
            try:
                figures = results[name] = measure()
                cells = (f"{figures[c]:11.4f}" if c in figures else f"{'-':>11}" for c in columns)
                text = "".join(cells)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                results[name] = {"error": text}
                text = f"  {' '.join(text.split())[:160]}"
            print(f"{name:{width}}{text}", flush=True)
            gc.collect()
            if self.cuda:
                torch.cuda.empty_cache()
        if self.json:
            with open(self.json, "w", encoding="utf-8") as file:
                json.dump(self.results, file, indent=1)


def copies(bench, quick):
    def rate(mib):
        make = partial(make_copy, mib, bench.device)
        return bench.small(make, amount=2 * mib * 2**20 / 1e9, unit="GB/s")

    return {f"copy of {mib} MiB": partial(rate, mib) for mib in ([16] if quick else [64, 1024])}


def products(bench, quick):
    def rate(form, m, k, n, dtype=torch.float32, precision="highest"):
        torch.set_float32_matmul_precision(precision)
        try:
            make = partial(make_product, form, m, k, n, dtype, bench.device)
            return bench.small(make, amount=2 * m * k * n / 1e12, unit="TFLOP/s")
        finally:
            torch.set_float32_matmul_precision("highest")

    shrink = 16 if quick else 1
    shapes = [(size, size, size) for size in (1024, 2048, 4096, 8192)]
    of_gpt2 = [(448, 768, 2304), (448, 768, 3072), (448, 3072, 768)]
    every = [("nn", shape) for shape in shapes]
    every += [(form, shapes[2]) for form in ("nt", "tn")]
    every += [(form, shape) for shape in of_gpt2 for form in ("nn", "nt", "tn")]
    every = [(form, *(side // shrink for side in shape)) for form, shape in every]
    rows = {f"{form} {m}x{k}x{n} f32": partial(rate, form, m, k, n) for form, m, k, n in every}
    square = every[2]
    name = "{} {}x{}x{}".format(*square)
    rows[f"{name} tf32"] = partial(rate, *square, precision="high")
    rows[f"{name} bf16"] = partial(rate, *square, torch.bfloat16)
    rows[f"{name} f16"] = partial(rate, *square, torch.float16)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", metavar="FILE", help="write all figures there after each group")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-graphs", action="store_true", help="leave out CUDA graphs")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and few repeats, to see that all runs; the figures say nothing",
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    bench, quick = Bench(args), args.quick
    steps, small = STEPS, kernels(bench.device, quick)
    if quick:
        steps = {
            name: replace(shape, layers=2, vocabulary=1000, tokens=16)
            for name, shape in STEPS.items()
        }

    def step_rows(names, graph=False, **options):
        makes = {name: partial(make_step, steps[name], bench.device, **options) for name in names}
        return {name: partial(bench.step, make, graph) for name, make in makes.items()}

    def small_rows(graph=False):
        return {name: partial(bench.small, make, graph) for name, make in small.items()}

    # What may take long, or leave the device in a bad state, comes last.
    of_step = ["first s", "ms", "peak MiB"]
    bench.group("copies, read and written", ["ms", "GB/s"], copies(bench, quick))
    bench.group("products m x k x n", ["ms", "TFLOP/s"], products(bench, quick))
    bench.group("steps, eager f32", of_step, step_rows(STEPS))
    bench.group("steps, eager, bf16 autocast", of_step, step_rows(STEPS, autocast=True))
    bench.group("small work, eager f32", ["ms"], small_rows())
    if bench.cuda and not args.no_graphs:
        bench.group("small work, CUDA graph, f32", ["ms"], small_rows(graph=True))
        bench.group("steps, CUDA graph, f32", of_step, step_rows(STEPS, graph=True))
    if not args.no_compile:
        names = [name for name in STEPS if name.startswith("gpt2")]
        bench.group("steps, compiled, f32", of_step, step_rows(names, compiled=True))


if __name__ == "__main__":
    main()
