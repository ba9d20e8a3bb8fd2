# SPDX-FileCopyrightText: The Ouro authors
# SPDX-License-Identifier: MIT
#
# Trains and runs the model of model.py on a text and prints one JSON line: seconds and loss of every update, peak
# memory and bytes generated per second. The PyTorch side of benchmarks/compare. On a GPU, `--products bf16` is what users of
# PyTorch mean by training in bf16: autocast, with f32 weights, moments and state.
import argparse
import contextlib
import json
import resource
import time

import torch
from safetensors.torch import load_file

from model import Compressor, Config, Gridman, Layer


def peak_memory(device):
    """Of the process, or of what PyTorch has handed out on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def blocks(path, config):
    """Inputs and targets [1, S, P] of the text's blocks of (S + 1) * P bytes, in order, over and over."""
    size = (config.chunk + 1) * config.patch
    with open(path, "rb") as file:
        text = file.read()
    if len(text) < size:
        raise SystemExit(f"timing: the text must have at least {size} bytes")
    while True:
        for at in range(0, len(text) - size + 1, size):
            block = torch.tensor(list(text[at:at + size])).view(1, config.chunk + 1, config.patch)
            yield block[:, :-1], block[:, 1:]


def compile_layers(model):
    """Layer by layer: whole components take minutes to compile, and nearly all the arithmetic is here."""
    for module in model.modules():
        if isinstance(module, (Layer, Compressor)):
            module.compile()


def autocast(device, products):
    if device == "cuda" and products == "bf16":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def update(model, rule, s, data, cast):
    """One update: the wake steps of a span and the sleep steps that fall due before them. Returns the state and the
    means of loss and cross entropy."""
    total, task, span = 0, 0, model.config.bptt
    with cast():
        for _ in range(span):
            while model.sleeps_next(s):
                s, _ = model.sleep_step(s)
            inputs, targets = next(data)
            s, seen = model.wake_step(s, inputs)
            loss = model.loss(seen, inputs, targets, some_live=True)
            total, task = total + loss.total / span, task + loss.task.detach() / span
    rule.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    rule.step()
    return s.detach(), total.item(), task.item()


@torch.no_grad()
def generate(model, s, patch, count, cast):
    """Bytes per second of greedy speech: one wake step for each patch, then its bytes."""
    model.eval()
    torch.compiler.set_stance("force_eager")  # every byte has another shape
    said = 0
    start = time.perf_counter()
    with cast():
        while said < count:
            s, seen = model.wake_step(s, patch)
            patch = model.generate(seen, patch[:, -1, -1])[0].unsqueeze(1)
            said += patch.numel()
    patch.tolist()  # a device is waited for
    return said / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description="times training and generation")
    parser.add_argument("--config", required=True, help="JSON object, the fields of gridman_config")
    parser.add_argument("--weights", help="safetensors under the reference's names; drawn if not given")
    parser.add_argument("--text", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=1, help="updates before those that are timed")
    parser.add_argument("--rate", type=float, default=3e-4, help="the learning rate, constant")
    parser.add_argument("--angle", type=float, help="the newborn oscillator's angle; drawn if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="train through torch.compile (speech stays eager)")
    parser.add_argument("--checkpoint", action="store_true", help="recompute layers in the backward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--products", choices=("f32", "tf32", "bf16"), default="f32",
                        help="what products may round their factors to; bf16 on cuda: autocast")
    parser.add_argument("--generate", type=int, default=0, metavar="BYTES", help="rounded up to whole patches")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision({"f32": "highest", "tf32": "high", "bf16": "medium"}[options.products])
    torch.set_default_device(options.device)
    torch.manual_seed(options.seed)

    def cast():
        return autocast(options.device, options.products)

    fields = json.loads(options.config)
    fields.pop("ignored_bytes_as_zero", None)  # every byte of the text is a target
    model = Gridman(Config(**fields, checkpoint_layers=options.checkpoint)).train()
    if options.weights:
        model.load(load_file(options.weights, device=options.device))
    if options.compile:
        compile_layers(model)
    rule = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01,
                             fused=options.device == "cuda")
    s = model.newborn(angle=options.angle)
    report = {"parameters": sum(p.numel() for p in model.parameters()), "memory_after_construction": peak_memory(options.device)}
    data = blocks(options.text, model.config)
    seconds, losses, tasks = [], [], []
    for _ in range(options.warmup + options.updates):
        start = time.perf_counter()
        s, loss, task = update(model, rule, s, data, cast)
        seconds.append(time.perf_counter() - start)
        losses.append(loss)
        tasks.append(task)
    report.update(warmup_seconds=seconds[:options.warmup], seconds=seconds[options.warmup:], losses=losses,
                  cross_entropies=tasks, peak_memory=peak_memory(options.device))
    if options.device == "cuda":
        report["reserved_memory"] = torch.cuda.max_memory_reserved()
    if options.generate:
        report["generated_bytes_per_second"] = generate(model, s, next(data)[0][:, :1], options.generate, cast)
    report.update(threads=options.threads, compiled=options.compile, checkpointed=options.checkpoint,
                  torch=torch.__version__)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
