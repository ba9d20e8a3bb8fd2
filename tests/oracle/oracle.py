# SPDX-FileCopyrightText: The Ouro authors
# SPDX-License-Identifier: MIT
#
# Golden fixtures (format "ouro-golden-1") and the model of model.py: `check` replays a fixture and compares everything
# in it, `make` writes a new one.
import argparse
import dataclasses
import json
import math
import os
import random
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model import Config, EOS, Gridman, IGNORED, PAD, State

STATES = ("mem", "state", "thought", "oscillator", "hormone", "self")
SIZES = ("width", "heads", "sensor_layers", "brain_layers", "actor_layers", "patch", "chunk", "state_rows",
         "memory_rows", "anchors", "wake", "sleep", "bptt")
OPTIMISER = dict(learning_rate="3e-4", betas="0.9,0.999", eps="1e-8", weight_decay="0.01", clip="1.0")
TEXT = ("The serpent eats its tail and is not consumed: what it was feeds what it is. \u5922\u306e\u4e2d\u3067\u3001"
        "\u8a18\u61b6\u306f\u9759\u304b\u306b\u5f62\u3092\u5909\u3048\u308b\u3002 Asleep, it keeps what mattered; "
        "awake, it reads on, byte by byte, patch by patch. \u00c0 demain, dit la nuit. ").encode()


def replay(meta, tensors, dtype, checkpoint_layers=False):
    """Runs a fixture's steps from its weights, its initial state and its bytes. Returns what the model computes, under
    the fixture's names, and for each update the names of the parameters without a gradient."""
    model = Gridman(Config(**json.loads(meta["config"]), dropout=0, oscillator_noise=0, sleep_noise=0,
                           ignored_as_zero=True, checkpoint_layers=checkpoint_layers)).to(dtype)
    model.load({k[len("weights/"):]: v for k, v in tensors.items() if k.startswith("weights/")})
    training, span = meta["mode"] == "train", model.config.bptt
    model.train(training)
    torch.set_grad_enabled(training)
    if training:
        rate, eps, decay, clip = (float(meta[k]) for k in ("learning_rate", "eps", "weight_decay", "clip"))
        betas = tuple(map(float, meta["betas"].split(",")))
        rule = torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, eps=eps, weight_decay=decay)
    s = State(**{k: tensors["initial/" + k].to(dtype) if "initial/" + k in tensors else None for k in STATES})
    out, absent = {}, []
    wakes, total = 0, None
    for i, kind in enumerate(meta["steps"]):
        at = f"step{i}/"
        if kind == "S":
            s, seen = model.sleep_step(s)
        else:
            data = tensors[at + "input"].long()
            s, seen = model.wake_step(s, data)
            seen.inner["anchors"] = model.actor.decompressor(seen.features, seen.before).detach()
        if kind == "G":
            forced = tensors[at + "forced"].long()
            out[at + "said"], out[at + "logits"] = model.generate(seen, data[:, -1, -1], forced)
            told = tensors.get(at + "said", out[at + "said"]).long()
            if not told.equal(out[at + "said"]):  # go on as the fixture does, to see how close it was
                out[at + "logits"] = model.generate(seen, data[:, -1, -1], told)[1]
            out[at + "logits"] = out[at + "logits"].unsqueeze(1)
        if kind == "W":
            target = tensors[at + "target"].long()
            loss = model.loss(seen, data, target)
            out.update({at + "loss": loss.total, at + "loss_ce": loss.task, at + "loss_predicted": loss.predicted})
            out[at + "logits"] = model.predict(seen, data, target)[0].detach()
            if loss.total.requires_grad:
                total = loss.total / span + (0 if total is None else total)
            wakes += 1
        out.update({at + k: getattr(s, k) for k in STATES})
        out.update({at + "inner/" + k: v for k, v in seen.inner.items()})
        if training and kind == "W" and wakes % span == 0:
            at = f"update{len(absent)}/"
            rule.zero_grad(set_to_none=True)
            if total is not None:
                total.backward()
            named = dict(model.named_parameters())
            out.update({f"{at}grad/{k}": p.grad.clone() for k, p in named.items() if p.grad is not None})
            absent.append([k for k, p in named.items() if p.grad is None])
            out[at + "grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            rule.step()
            out.update({f"{at}weights/{k}": v.detach().clone() for k, v in model.state_dict().items()})
            s, total = s.detach(), None
    torch.set_grad_enabled(True)
    return {k: v.detach() for k, v in out.items()}, absent


class Tally:
    def __init__(self):
        self.kinds, self.good = {}, True

    def note(self, kind, key, error, limit):
        worst, where, most, count = self.kinds.get(kind, (-1.0, "", 0.0, 0))
        self.good = self.good and error <= limit
        if not error <= worst:
            worst, where = error, key
        self.kinds[kind] = (worst, where, max(most, limit), count + 1)


def relative(a, b):
    if a.shape != b.shape or not a.isfinite().all():
        return math.inf
    error = (a.double() - b.double()).abs().max().item()
    return error / max(b.double().abs().max().item(), 1e-300) if error else 0.0


def limits(key, stored, dtype, single):
    """The kind of a tensor and the relative error allowed."""
    exact = dtype == torch.float64
    states = (1e-6 if single else 1e-9) if exact else 1e-4
    if "/grad/" in key or key.endswith("grad_norm"):
        return "gradient", 1e-6 if exact else 1e-3
    if "/weights/" in key:
        return "weights", 1e-7 if exact else 1e-4
    if key.endswith("/logits"):
        return "logits", max(states, 1e-7) if stored.dtype == torch.float32 else states
    name = key.split("/")[1]
    return ("loss" if name.startswith("loss") else "inner" if name == "inner" else "state"), states


def check(path, dtype, checkpoint_layers):
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    mine, absent = replay(meta, tensors, dtype, checkpoint_layers)
    tally = Tally()
    rate = float(meta.get("learning_rate", 0))
    single = tensors["initial/mem"].dtype == torch.float32
    for key, value in tensors.items():
        given = key.startswith(("weights/", "initial/")) or key.endswith(("/input", "/target", "/forced"))
        if given or "/grad/" in key and "self_encoder." in key and "/grad/self_encoder." not in key:
            continue
        if key.endswith("loss_predicted") and (tensors[key.replace("loss_predicted", "target")] < 0).all():
            continue  # not defined without a target
        if key not in mine:
            tally.note("missing", key, math.inf, 0)
        elif key.endswith("/said"):
            logits = mine[key.replace("said", "logits")][:, 0]
            gap = logits.max(-1).values - logits.gather(-1, value.long().unsqueeze(-1)).squeeze(-1)
            wrong = value.long() != mine[key]
            wrong[:, :tensors[key.replace("said", "forced")].size(1)] = False
            wrong &= gap >= (1e-4 if dtype == torch.float32 else 0.0)
            tally.note("bytes said", key, float(wrong.sum()), 0)
        elif "/weights/" in key and dtype == torch.float32 and "running_" not in key:
            updates = int(key.split("/")[0][len("update"):]) + 1
            error = (mine[key].double() - value.double()).abs().max().item()
            tally.note("weights / rate", key, error / (rate * updates), 0.2)
        else:
            kind, limit = limits(key, value, dtype, single)
            tally.note(kind, key, relative(mine[key], value), limit)
    for u, names in enumerate(absent):
        wanted = set(meta[f"update{u}/no_gradient"].split())
        for key in wanted.symmetric_difference(names):
            tally.note("gradient present", f"update{u}/{key}", 1, 0)
        tally.note("gradient present", f"update{u}", 0, 0)
    print(f"{path} {str(dtype).split('.')[1]}")
    for kind, (worst, where, limit, count) in sorted(tally.kinds.items()):
        print(f"  {kind:<18} {count:6d} compared, worst {worst:.2e} (limit {limit:.0e}) {where}")
    print("  passed" if tally.good else "  FAILED", flush=True)
    return tally.good


def newborn_weights(config):
    """Initial weights that f32 holds exactly, one-dimensional ones perturbed so that no bias is 0 and no scale is 1."""
    model = Gridman(config)
    weights = {}
    for key, value in model.state_dict().items():
        if value.dim() == 1:
            value = value * (1 + 0.2 * torch.rand_like(value)) if key.endswith("running_var") else (
                value + 0.1 * torch.randn_like(value))
        weights["weights/" + key] = value.float().clone()
    for key, value in weights.items():  # one module under three names
        if ".self_encoder." in key:
            weights[key] = weights["weights/self_encoder." + key.split(".self_encoder.")[1]].clone()
    return weights


def make(options):
    torch.manual_seed(options.seed)
    sizes = json.loads(options.config)
    if set(sizes) != set(SIZES):
        sys.exit("oracle: --config must have exactly the fields " + " ".join(SIZES))
    config = Config(**sizes)
    lanes, patch = options.lanes, config.patch
    tensors = newborn_weights(config)
    start = Gridman(config).newborn(lanes)
    if not options.newborn:
        start = start._replace(**{k: torch.randn_like(getattr(start, k)) / math.sqrt(config.width) for k in
                                  ("mem", "state", "hormone", "self")})
    if options.thought:
        start = start._replace(thought=torch.randn(lanes, 2, config.width) / math.sqrt(config.width))
    tensors.update({"initial/" + k: getattr(start, k) for k in STATES if getattr(start, k) is not None})

    ignored = dict(map(int, word.split(":")) for word in options.ignore)
    text = torch.tensor(list(TEXT * (1 + (len(options.steps) + lanes + 2) * config.chunk * patch // len(TEXT) + 2)))
    for i, kind in enumerate(options.steps):
        if kind == "S":
            continue
        patches = config.chunk if kind == "W" else 1
        block = torch.stack([text[(31 * b + i * config.chunk * patch):][:(patches + 1) * patch] for b in range(lanes)])
        if i == options.end:  # lane 0's document ends in the middle of the block
            middle = block.size(1) // 2
            block[0, middle] = EOS
            block[0, middle + 1:] = PAD
        tensors[f"step{i}/input"] = block[:, :patches * patch].reshape(lanes, patches, patch).int()
        if kind == "W":
            target = block[:, patch:].masked_fill(block[:, patch:] == PAD, IGNORED)
            target[:, :ignored.get(i, 0)] = IGNORED
            tensors[f"step{i}/target"] = target.reshape(lanes, patches, patch).int()
        else:
            tensors[f"step{i}/forced"] = block[:, patch:][:, :patch // 3].int()
    meta = {"format": "ouro-golden-1", "mode": "eval" if options.eval else "train", "config": json.dumps(sizes),
            "lanes": str(lanes), "steps": options.steps, "seed_note": "no noise, no dropout"}
    if not options.eval:
        meta.update(OPTIMISER)

    made, absent = replay(meta, tensors, torch.float64)
    for u, names in enumerate(absent):
        meta[f"update{u}/no_gradient"] = " ".join(names)
    shown = {f"step{i}/" for i in options.inner}
    for key, value in made.items():
        at = key.split("/")[0] + "/"
        single = options.single or key.endswith("/logits") or at.startswith("update") and "grad_norm" not in key
        hidden = ("/logits" in key or "/inner/" in key) and at not in shown
        hidden = hidden or ("/grad/" in key or "/weights/" in key) and value.numel() > options.largest
        if not hidden:
            tensors[key] = value.int() if key.endswith("/said") else value.float() if single else value
    for key in [k for k in tensors if k.startswith("initial/")]:
        tensors[key] = tensors[key].float() if options.single else tensors[key].double()
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, options.out, meta)
    os.chmod(options.out, 0o644)


def draw(options):
    """Fixtures of any size and course: what `make` can be asked for, drawn at random. A hormone has three numbers at
    least (layer norm of two leaves gradients that are all rounding), and batch normalisation more than one."""
    for i in range(options.count):
        r = random.Random(f"{options.seed} {i}")
        training, heads, patch = r.random() < 0.6, r.choice((1, 1, 2, 3, 4, 5)), r.choice((4, 5, 6, 8, 11, 16, 21))
        sizes = dict(width=4 * heads * r.randint((heads + 2) // heads, 10 // heads + 1), heads=heads,
                     sensor_layers=r.randint(1, 3), brain_layers=r.randint(1, 3), actor_layers=r.randint(1, 3),
                     patch=patch, chunk=r.choice((1, 2, 3, 5, 8)), state_rows=r.choice((1, 2, 3, 4, 7)),
                     memory_rows=r.choice((1, 2, 5, 8, 13)), anchors=r.choice((1, 2, 3, 5)),
                     wake=r.randint(1, 4), sleep=r.randint(0, 3), bptt=r.randint(1, 4))
        count, most = r.randint(1, 12), sizes["chunk"] * patch
        words = [os.path.join(options.folder, f"drawn_{options.seed}_{i}.safetensors"), "--config", json.dumps(sizes),
                 "--steps", "".join(r.choice("WWWS" if training else "WWSG") for _ in range(count)),
                 "--lanes", str(r.choice((2, 3, 5) if patch == 4 else (1, 1, 2, 3))),
                 "--seed", str(r.randrange(1 << 30)), "--inner", *map(str, range(count))]
        if r.random() < 0.5:
            words += ["--end", str(r.randrange(count))]
        if r.random() < 0.5:
            ignored = [(r.randrange(count), r.choice((1, most // 2, most - 1, most))) for _ in range(2)]
            words += ["--ignore", *(f"{step}:{targets}" for step, targets in ignored)]
        for flag, chance in (("--newborn", 0.3), ("--thought", 0.5), ("--single", 0.1), ("--eval", 1 - training)):
            words += [flag] * (r.random() < chance)
        print("oracle.py make", *(repr(w) if "{" in w else w for w in words), flush=True)
        make(parse(["make", *words]))


def parse(words=None):
    parser = argparse.ArgumentParser(description="replays and makes golden fixtures")
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("check", help="replays fixtures; exits 1 above the tolerances")
    c.add_argument("files", nargs="+")
    c.add_argument("--dtype", choices=("f64", "f32"), default="f64")
    c.add_argument("--checkpoint", action="store_true", help="recompute layers in the backward pass")
    m = commands.add_parser("make", help="writes a fixture")
    m.add_argument("out")
    m.add_argument("--config", required=True, help="JSON object of the sizes: " + " ".join(SIZES))
    m.add_argument("--steps", required=True, help="W wake with targets, S sleep, G generation")
    m.add_argument("--seed", type=int, default=1)
    m.add_argument("--eval", action="store_true", help="evaluation: running statistics, no updates")
    m.add_argument("--lanes", type=int, default=1)
    m.add_argument("--newborn", action="store_true", help="begin with a state of zeros")
    m.add_argument("--thought", action="store_true", help="begin with a thought")
    m.add_argument("--end", type=int, default=-1, metavar="STEP", help="the first lane's document ends in this step")
    m.add_argument("--ignore", nargs="*", default=[], metavar="STEP:COUNT",
                   help="a step's first COUNT targets are ignored")
    m.add_argument("--inner", nargs="*", type=int, default=[], metavar="STEP",
                   help="steps with logits and inner values")
    m.add_argument("--largest", type=int, default=1 << 62,
                   help="no gradients and updates of tensors above so many numbers")
    m.add_argument("--single", action="store_true", help="store every value in f32")
    d = commands.add_parser("draw", help="writes fixtures of random sizes and steps")
    d.add_argument("folder")
    d.add_argument("--count", type=int, default=20)
    d.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)


def main():
    options = parse()
    torch.set_num_threads(1)
    if options.command == "make":
        return make(options)
    if options.command == "draw":
        return draw(options)
    dtype = torch.float64 if options.dtype == "f64" else torch.float32
    good = [check(path, dtype, options.checkpoint) for path in options.files]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
