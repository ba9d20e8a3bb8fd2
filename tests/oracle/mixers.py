# SPDX-FileCopyrightText: The Ouro authors
# SPDX-License-Identifier: MIT
#
# RWKV-7 and Mamba-2, a row at a time and without any kernel, from their papers and published programs: `check` replays
# fixtures of the format "ouro-mixer-1", `draw` makes new ones, of random sizes. Gradients are PyTorch's.
import argparse
import json
import math
import os
import random
import sys

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

RWKV7_VECTORS = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a")
RWKV7_MATRICES = ("receptance", "key", "value", "output")


def rwkv7(w, x, shift, state, v_first, head):
    """One layer over x [B, T, D] with weights w. Returns y, the state after the last row [B, H, value, key] and the
    first layer's values."""
    lanes, rows, width = x.shape
    before = torch.cat([shift, x[:, :-1]], 1)
    mixed = {c: x + (before - x) * w["x_" + c] for c in "rwkvag"}
    r, k, v = (F.linear(mixed[c], w[name + ".weight"]) for c, name in zip("rkv", RWKV7_MATRICES))
    decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(w["w0"] + torch.tanh(mixed["w"] @ w["w1"]) @ w["w2"]))
    rate = torch.sigmoid(w["a0"] + mixed["a"] @ w["a1"] @ w["a2"])
    gate = torch.sigmoid(mixed["g"] @ w["g1"]) @ w["g2"]
    if v_first is None:
        v_first = v
    else:
        v = v + (v_first - v) * torch.sigmoid(w["v0"] + mixed["v"] @ w["v1"] @ w["v2"])
    by_head = lambda t: t.unflatten(-1, (-1, head))
    removed = F.normalize(by_head(k * w["k_k"]), dim=-1, eps=1e-12)
    k = k * (1 + (rate - 1) * w["k_a"])
    r, k, v, decay, rate = map(by_head, (r, k, v, decay, rate))
    out = []
    for t in range(rows):
        gone = -(state @ removed[:, t].unsqueeze(-1))
        state = (state * decay[:, t].unsqueeze(-2) + gone * (removed * rate)[:, t].unsqueeze(-2)
                 + v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2))
        out.append((state @ r[:, t].unsqueeze(-1)).squeeze(-1))
    z = torch.stack(out, 1).view(lanes * rows, width)
    z = F.group_norm(z, width // head, w["ln_x.weight"], w["ln_x.bias"], 64e-5)
    z = z.view(lanes, rows, width) + ((r * k * w["r_k"]).sum(-1, keepdim=True) * v).flatten(-2)
    return F.linear(z * gate, w["output.weight"]), state, v_first


def mamba2(w, u, config, limits, eps):
    """u [B, T, D] with weights w, from a state of zeros."""
    inner, heads = config["expand"] * config["hidden_size"], config["num_heads"]
    size, groups, kernel = config["state_size"], config["n_groups"], config["conv_kernel"]
    z, mixed, step = F.linear(u, w["in_proj.weight"]).split([inner, inner + 2 * groups * size, heads], -1)
    mixed = F.conv1d(F.pad(mixed.transpose(1, 2), (kernel - 1, 0)), w["conv1d.weight"], w["conv1d.bias"],
                     groups=mixed.size(-1))
    x, b, c = F.silu(mixed).transpose(1, 2).split([inner, groups * size, groups * size], -1)
    x = x.unflatten(-1, (heads, -1))
    b, c = (t.unflatten(-1, (groups, size)).repeat_interleave(heads // groups, 2) for t in (b, c))
    step = F.softplus(step + w["dt_bias"], threshold=1e3).clamp(*limits)
    kept = torch.exp(-step * w["A_log"].exp())
    state = u.new_zeros(u.size(0), heads, x.size(-1), size)
    out = []
    for t in range(u.size(1)):
        state = state * kept[:, t, :, None, None] + (step[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
        out.append((state @ c[:, t].unsqueeze(-1)).squeeze(-1) + w["D"][:, None] * x[:, t])
    y = (torch.stack(out, 1).flatten(-2) * F.silu(z)).unflatten(-1, (groups, -1))
    y = y * (y.square().mean(-1, keepdim=True) + eps).rsqrt()
    return F.linear(y.flatten(-2) * w["norm.weight"], w["out_proj.weight"])


def under(tensors, prefix):
    return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}


def replay(meta, tensors, dtype=torch.float64):
    """What the mixer computes of a fixture's weights and inputs, under the fixture's names."""
    given = {k: v.to(dtype).requires_grad_() for k, v in tensors.items()
             if "weights/" in k or k.split("/")[-1] in ("x", "shift", "S0") and "grad/" not in k}
    out, total = {}, 0
    if meta["mixer"] == "rwkv7":
        first = None
        for i in range(int(meta["layers"])):
            at = f"layer{i}/"
            x, shift, state = (given[at + name] for name in ("x", "shift", "S0"))
            y, state, first = rwkv7(under(given, at + "weights/"), x, shift, state, first, int(meta["head"]))
            out.update({at + "y": y, at + "S_T": state, "v_first": first})
            total = total + (y * tensors[at + "dy"]).sum() + (state * tensors[at + "dS_T"]).sum()
    else:
        limits = tuple(map(float, meta["time_step_limit"].strip("()").split(",")))
        out["y"] = mamba2(under(given, "weights/"), given["x"], json.loads(meta["config"]), limits,
                          float(meta["norm_eps"]))
        total = (out["y"] * tensors["dy"]).sum()
    total.backward()
    for key, value in given.items():
        if value.grad is not None:
            at, what = key.removesuffix(key.split("/")[-1]).removesuffix("weights/"), key.split("/")[-1]
            out[at + "grad/" + what] = value.grad
    return {k: v.detach() for k, v in out.items()}


def check(path, dtype):
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    made = replay(meta, tensors, dtype)
    wanted = {k: v for k, v in tensors.items() if "grad/" in k or k.split("/")[-1] in ("y", "S_T", "v_first")}
    error = {k: ((made[k] - v).norm() / v.norm().clamp(min=1e-300)).item() if k in made else math.inf for k, v in
             wanted.items()}
    worst = max(error, key=error.get)
    print(f"{path} {str(dtype).split('.')[1]}: {len(error)} compared, worst {error[worst]:.2e} {worst}")
    return set(made) == set(wanted) and all(
        e <= (1e-9 if dtype == torch.float64 else 1e-4 if "grad/" in k else 1e-5) for k, e in error.items())


def draw_rwkv7(r):
    head, layers, rank = r.choice((4, 6, 8, 16, 32, 64)), r.randint(1, 3), r.choice((1, 3, 8, 11))
    width, lanes = head * r.randint(1, 64 // head), r.randint(1, 3)
    rows = r.choice((1, 2, 15, 16, 17, 31, 33, 70))
    meta = dict(mixer="rwkv7", width=width, head=head, layers=layers, rank=rank, tokens=rows, batch=lanes)
    tensors = {}
    for i in range(layers):
        at = f"layer{i}/"
        w = {name: torch.randn(1, 1, width) * 0.5 for name in RWKV7_VECTORS}
        w["w0"] = w["w0"] * 4 - 2
        w.update({name + ".weight": torch.randn(width, width) / math.sqrt(width) for name in RWKV7_MATRICES})
        for low in "wavg":
            w[low + "1"] = torch.randn(width, rank) / math.sqrt(width)
            w[low + "2"] = torch.randn(rank, width) / math.sqrt(rank)
        w.update({"r_k": torch.randn(width // head, head) * 0.3, "ln_x.weight": 1 + 0.2 * torch.randn(width),
                  "ln_x.bias": 0.2 * torch.randn(width)})
        tensors.update({at + "weights/" + k: v for k, v in w.items()})
        state = (lanes, width // head, head, head)
        tensors.update({at + k: torch.randn(dims, dtype=torch.float64) for k, dims in (
            ("x", (lanes, rows, width)), ("shift", (lanes, 1, width)), ("S0", state), ("dS_T", state),
            ("dy", (lanes, rows, width)))})
    return meta, tensors


def draw_mamba2(r):
    groups, per_group, head = r.choice((1, 1, 2, 3)), r.randint(1, 3), r.choice((1, 2, 4, 8, 16, 64))
    heads = groups * per_group
    expand = r.choice((1, 2)) if heads * head % 2 == 0 else 1
    config = dict(hidden_size=heads * head // expand, expand=expand, head_dim=head, num_heads=heads, n_groups=groups,
                  state_size=r.choice((1, 3, 8, 16, 24, 64, 128)), conv_kernel=r.choice((1, 2, 3, 4, 5)))
    limits = r.choice(("(0.0, inf)", "(0.0, inf)", "(0.1, 0.5)"))
    lanes, rows = r.randint(1, 3), r.choice((1, 2, 3, 15, 16, 17, 63, 65, 130))
    width, inner, mixed = config["hidden_size"], heads * head, heads * head + 2 * groups * config["state_size"]
    w = {"A_log": torch.empty(heads).uniform_(-2, 2.7), "D": torch.randn(heads),
         "dt_bias": torch.empty(heads).uniform_(-5, 1),
         "conv1d.weight": torch.randn(mixed, 1, config["conv_kernel"]) / 2, "conv1d.bias": 0.3 * torch.randn(mixed),
         "in_proj.weight": torch.randn(inner + mixed + heads, width) / math.sqrt(width),
         "norm.weight": 1 + 0.2 * torch.randn(inner), "out_proj.weight": torch.randn(width, inner) / math.sqrt(inner)}
    tensors = {"weights/" + k: v for k, v in w.items()}
    tensors.update({k: torch.randn(lanes, rows, width, dtype=torch.float64) for k in ("x", "dy")})
    return dict(mixer="mamba2", config=json.dumps(config), tokens=rows, batch=lanes, time_step_limit=limits,
                norm_eps="1e-05"), tensors


def draw(folder, count, seed):
    """A folder for each pair of fixtures, named as the tests look for them."""
    for i in range(count):
        r = random.Random(f"{seed} {i}")
        torch.manual_seed(r.randrange(1 << 30))
        for name, make in (("rwkv7", draw_rwkv7), ("mamba2", draw_mamba2)):
            meta, tensors = make(r)
            made = replay({k: str(v) for k, v in meta.items()}, tensors)
            os.makedirs(f"{folder}/{i}", exist_ok=True)
            path = f"{folder}/{i}/mixers_{name}.safetensors"
            save_file({k: v.contiguous().clone() for k, v in (tensors | made).items()}, path,
                      {k: str(v) for k, v in meta.items()} | {"format": "ouro-mixer-1"})
            print(path, meta, flush=True)


def main():
    parser = argparse.ArgumentParser(description="replays and makes fixtures of sequence mixers")
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("check", help="replays fixtures; exits 1 above the tolerances")
    c.add_argument("files", nargs="+")
    c.add_argument("--dtype", choices=("f64", "f32"), default="f64")
    d = commands.add_parser("draw", help="writes fixtures of random sizes, a pair to a folder")
    d.add_argument("folder")
    d.add_argument("--count", type=int, default=20)
    d.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "draw":
        return draw(options.folder, options.count, options.seed)
    dtype = torch.float64 if options.dtype == "f64" else torch.float32
    return 0 if all([check(path, dtype) for path in options.files]) else 1


if __name__ == "__main__":
    sys.exit(main())
