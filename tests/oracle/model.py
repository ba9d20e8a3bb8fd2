# SPDX-FileCopyrightText: The Ouro authors
# SPDX-License-Identifier: MIT
#
# The reference model in PyTorch, written from its specification as a user of PyTorch would write it. Parameters bear
# the reference's names; everything that persists from step to step is a State, handed in and returned.
import dataclasses
import functools
import math
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

VOCABULARY, PAD, EOS, IGNORED = 258, 256, 257, -100


@dataclasses.dataclass(frozen=True)
class Config:
    width: int
    heads: int
    sensor_layers: int
    brain_layers: int
    actor_layers: int
    patch: int
    chunk: int
    state_rows: int
    memory_rows: int
    anchors: int
    wake: int = 4
    sleep: int = 2
    bptt: int = 4
    dropout: float = 0.1
    oscillator_noise: float = 0.15
    sleep_noise: float = 0.05
    ignored_as_zero: bool = False  # the Actor reads ignored target bytes as byte 0
    checkpoint_layers: bool = False  # recompute the StateTransformers' layers in the backward pass


class State(NamedTuple):
    mem: torch.Tensor  # [B, memory_rows, D]
    state: torch.Tensor  # [B, state_rows, D]
    thought: Optional[torch.Tensor]  # [B, >= 1, D], or absent
    oscillator: torch.Tensor  # [B, 2]
    hormone: torch.Tensor  # [B, 1, D / 4]
    self: torch.Tensor  # [B, 1, D]
    clock: int = 0

    def detach(state):
        return State(*(x.detach() if torch.is_tensor(x) else x for x in state))


class Seen(NamedTuple):
    """What one step leaves for the Actor and the loss; `inner` holds values for checks."""
    features: torch.Tensor  # [B, S, D]
    new_state: torch.Tensor  # [B, state_rows, D]
    hormone: torch.Tensor
    before: Optional[torch.Tensor]  # the thought before this step
    inner: dict


class Loss(NamedTuple):
    total: torch.Tensor
    task: torch.Tensor
    predicted: torch.Tensor


def unit(x):
    return F.normalize(x, dim=-1, eps=1e-5)


def normal(*shape, std=1.0):
    return nn.Parameter(torch.randn(*shape) * std)


class Attention(nn.Module):
    def __init__(self, width, heads, dropout=0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x, context=None, mask=None, causal=False):
        if context is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            width = x.size(-1)
            q = F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = F.linear(context, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal,
                                           dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Receptor(nn.Module):
    """A backbone whose output a gate scales, made from its input and the hormone."""

    def __init__(self, backbone, width, outputs=1):
        super().__init__()
        self.backbone, self.width = backbone, width
        self.hormone_network = nn.Sequential(nn.Linear(width // 4, width // 4), nn.SiLU(),
                                             nn.Linear(width // 4, width), nn.LayerNorm(width))
        self.query_norm = nn.LayerNorm(width)
        self.proj_gate = normal(outputs, width)
        self.proj_norm = nn.LayerNorm(outputs * width)

    def forward(self, x, hormone):
        q = self.query_norm(x.unflatten(-1, (-1, self.width)).sum(-2) + self.hormone_network(hormone))
        gate = torch.tanh(self.proj_norm((q.unsqueeze(-2) * self.proj_gate).flatten(-2)))
        return self.backbone(x) * gate


class Layer(nn.Module):
    def __init__(self, c, cross=False):
        super().__init__()
        d = c.width
        self.norm1, self.attn = nn.LayerNorm(d), Attention(d, c.heads, c.dropout)
        if cross:
            self.norm_cross, self.cross_attn = nn.LayerNorm(d), Attention(d, c.heads, c.dropout)
        self.norm2 = Receptor(nn.LayerNorm(d), d)
        self.linear1 = Receptor(nn.Linear(d, 4 * d), d, outputs=4)
        self.linear2 = Receptor(nn.Linear(4 * d, d), d)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x, hormone, mask=None, context=None, causal=False):
        x = x + self.drop(self.attn(self.norm1(x), mask=mask, causal=causal))
        if context is not None:
            x = x + self.drop(self.cross_attn(self.norm_cross(x), context))
        y = self.drop(F.gelu(self.linear1(self.norm2(x, hormone), hormone)))
        return x + self.linear2(y, hormone)


class SelfEncoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, width), nn.Tanh())
        self.norm = nn.LayerNorm(width)

    def forward(self, rows, current):
        return self.norm(0.95 * current + 0.05 * self.encoder(rows.mean(1, keepdim=True)))


@functools.lru_cache(maxsize=8)
def sandwich_mask(memory_rows, state_rows, length, device):
    """True where a row (Mem, Read, Input, Write) sees a column."""
    known = memory_rows + state_rows
    mask = torch.ones(known + length + state_rows, known + length + state_rows, dtype=torch.bool, device=device)
    mask[:, known:] = mask[:, known:].tril(-known)  # Mem and Read see no Input, Input row t sees 1..t
    mask[known + length:] = True
    return mask


@functools.lru_cache(maxsize=8)
def positions(memory_rows, state_rows, length, width, dtype, device):
    at = torch.cat([torch.arange(-memory_rows, 0), torch.zeros(state_rows), torch.arange(1, length + 1),
                    torch.full((state_rows,), 8 * state_rows)]).double()
    angle = at[:, None] * 100000.0 ** (-torch.arange(0, width, 2).double() / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).to(device, dtype)


class StateTransformer(nn.Module):
    def __init__(self, c, layers, self_encoder):
        super().__init__()
        self.self_encoder, self.checkpoint_layers = self_encoder, c.checkpoint_layers
        self.mem_norm, self.state_norm, self.input_norm = (nn.LayerNorm(c.width) for _ in range(3))
        self.read_slot_emb = normal(1, c.state_rows, c.width, std=0.02)
        self.write_slot_emb = normal(1, c.state_rows, c.width, std=0.02)
        self.layers = nn.ModuleList(Layer(c) for _ in range(layers))
        self.text_output_norm = Receptor(nn.LayerNorm(c.width), c.width)
        self.state_output_norm = Receptor(nn.LayerNorm(c.width), c.width)

    def forward(self, x, mem, state, hormone, own, update_self=False):
        m, s, i = self.mem_norm(mem), self.state_norm(state), self.input_norm(x)
        if update_self:
            own = self.self_encoder(s, own)
        sizes = m.size(1), s.size(1), i.size(1)
        y = torch.cat([m, s + self.read_slot_emb, i, s + self.write_slot_emb + own], 1)
        y = y + positions(*sizes, y.size(-1), y.dtype, y.device)
        mask = sandwich_mask(*sizes, y.device)
        for layer in self.layers:
            if self.checkpoint_layers and self.training and torch.is_grad_enabled():
                y = checkpoint(layer, y, hormone, mask, use_reentrant=False)
            else:
                y = layer(y, hormone, mask)
        start = sizes[0] + sizes[1]
        features = unit(self.text_output_norm(y[:, start:start + sizes[2]], hormone))
        new_state = unit(self.state_output_norm(y[:, start + sizes[2]:], hormone))
        return features, new_state, own


class Compressor(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c.width
        self.resonator = nn.Sequential(nn.Conv1d(VOCABULARY, 2 * d, 8, padding=2), nn.GELU(), nn.BatchNorm1d(2 * d))
        self.condenser = nn.Sequential(nn.Conv1d(2 * d, d, 1), nn.GELU())
        self.pos_emb = normal(1, d, c.patch, std=0.02)
        self.fusion_mlp = nn.Sequential(nn.Conv1d(d, d, 1), nn.GELU())
        self.boundary_fusion = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.LayerNorm(2 * d), nn.GELU(),
                                             nn.Linear(2 * d, d))
        nn.init.xavier_uniform_(self.boundary_fusion[3].weight, gain=0.1)
        self.proj_norm = nn.LayerNorm(d)

    def forward(self, x):  # [B, S, P, 258]
        y = self.condenser(self.resonator(x.flatten(0, 1).transpose(1, 2)))  # [B * S, D, P - 3]
        body = self.fusion_mlp(y + self.pos_emb[..., :y.size(-1)]).mean(-1)
        y = self.boundary_fusion(torch.cat([y[..., 0], body, y[..., -1]], -1))
        return self.proj_norm(y).unflatten(0, x.shape[:2])


class Sensor(nn.Module):
    def __init__(self, c, self_encoder):
        super().__init__()
        self.byte_embedding = nn.Embedding(VOCABULARY, VOCABULARY)
        nn.init.normal_(self.byte_embedding.weight, std=0.02)
        self.compressor = Compressor(c)
        self.context_mixer = StateTransformer(c, c.sensor_layers, self_encoder)

    def forward(self, data, mem, state, hormone, own):
        x = self.byte_embedding(data) * (data != PAD).unsqueeze(-1)
        compressed = self.compressor(x)
        return self.context_mixer(unit(compressed), mem, state, hormone, own)[0], compressed


class Brain(nn.Module):
    def __init__(self, c, self_encoder):
        super().__init__()
        d = c.width
        self.core = StateTransformer(c, c.brain_layers, self_encoder)
        self.prob_proj = nn.Sequential(nn.Linear(d, d // 2), nn.GELU(), nn.Linear(d // 2, d // 4), nn.GELU(),
                                       nn.Linear(d // 4, 1))

    def forward(self, x, mem, state, hormone, own):
        return self.core(x, mem, state, hormone, own, update_self=True)


class Decompressor(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.expander = nn.Linear(c.width, c.anchors * c.width)
        self.sos_anchor = normal(1, 1, c.anchors, c.width, std=0.02)

    def forward(self, thought, before):
        """Each patch's context, [B * S, 2K, D]: the anchors of the thought before it and of its own."""
        rows = thought if before is None else torch.cat([before[:, -1:], thought], 1)
        anchors = self.expander(rows).unflatten(-1, (-1, thought.size(-1)))
        if before is None:
            anchors = torch.cat([self.sos_anchor.expand(thought.size(0), -1, -1, -1), anchors], 1)
        return torch.cat([anchors[:, :-1], anchors[:, 1:]], 2).flatten(0, 1)


class Actor(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.hormone_proj = nn.Linear(c.width // 4, c.width // 4)
        self.decompressor = Decompressor(c)
        self.byte_embedding = nn.Embedding(VOCABULARY, c.width)
        self.pos_embedding = normal(1, 1, c.patch, c.width)
        self.global_sos = normal(1, 1, 1, c.width)
        self.decoder_layer = nn.ModuleList(Layer(c, cross=True) for _ in range(c.actor_layers))
        self.final_norm = Receptor(nn.LayerNorm(c.width), c.width)
        self.head = nn.Linear(c.width, VOCABULARY)

    def forward(self, thought, before, hormone, previous, told):
        """Logits [B, S, n + 1, 258] after n bytes told [B, S, n]; previous [B, S] are the bytes before the patches."""
        lanes, patches, n = told.shape
        context = self.decompressor(thought, before)
        first = (self.byte_embedding(previous).unsqueeze(2) if previous is not None else
                 self.global_sos.expand(lanes, patches, -1, -1))
        x = torch.cat([first, self.byte_embedding(told)], 2) + self.pos_embedding[:, :, :n + 1]
        x = x.flatten(0, 1)
        hormone = self.hormone_proj(hormone).repeat_interleave(patches, 0)
        for layer in self.decoder_layer:
            x = layer(x, hormone, context=context, causal=True)
        return self.head(self.final_norm(x, hormone)).unflatten(0, (lanes, patches)), context


class Hypothalamus(nn.Module):
    def __init__(self, width):
        super().__init__()
        h = width // 4
        self.context_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width + 2, width + 2), nn.LayerNorm(width + 2), nn.SiLU(),
                                     nn.Linear(width + 2, h), nn.Tanh(), nn.Linear(h, h), nn.LayerNorm(h), nn.Tanh())
        self.buffer_norm = nn.LayerNorm(h)

    def forward(self, rows, oscillator, hormone):
        c = self.context_norm(rows.mean(1, keepdim=True))
        change = unit(self.network(torch.cat([c, oscillator.unsqueeze(1)], -1)))
        return unit(self.buffer_norm(0.9 * hormone + 0.1 * change))


class Hippocampus(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.noise = c.width, c.sleep_noise
        self.dream_anchors, self.osc_proj = normal(1, d, d), nn.Linear(2, d)
        self.dream_attention = Attention(d, c.heads, c.dropout)
        self.mem_attn, self.state_attn = Attention(d, c.heads), Attention(d, c.heads)
        for name in ("dream_mem", "dream_state", "dream", "mem_input", "state_input", "mem_update", "state_update"):
            setattr(self, name + "_norm", nn.LayerNorm(d))
        self.mem_gate, self.state_gate = (nn.Sequential(nn.Linear(2 * d, d), nn.Sigmoid()) for _ in range(2))

    def noisy(self, x):
        return x + self.noise * torch.randn_like(x) if self.noise > 0 else x

    def inception(self, mem, state, oscillator):
        context = torch.cat([self.dream_mem_norm(mem), self.dream_state_norm(state)], 1)
        queries = self.dream_anchors + self.osc_proj(oscillator).unsqueeze(1)
        return unit(self.dream_norm(self.noisy(self.dream_attention(queries, context))))

    def consolidate(self, mem, state):
        m, s = self.mem_input_norm(mem), self.state_input_norm(state)
        change = self.mem_attn(m, s)
        m = self.mem_update_norm(m + (change - m) * self.mem_gate(torch.cat([m, change], -1)))
        change = self.state_attn(s, m)
        gate = self.state_gate(torch.cat([s, change], -1))
        s = self.state_update_norm(s + (self.noisy(change) - s) * gate)
        return unit(m), unit(s)


class Gridman(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        self.self_encoder = SelfEncoder(c.width)  # first, so that it bears this one of its three names
        self.sensor, self.brain = Sensor(c, self.self_encoder), Brain(c, self.self_encoder)
        self.actor = Actor(c)
        self.hypothalamus, self.hippocampus = Hypothalamus(c.width), Hippocampus(c)

    def load(self, weights):
        """Weights under the reference's names, the self encoder under the first of its three at least."""
        missing, unknown = self.load_state_dict(weights, strict=False)
        missing = [k for k in missing if not k.endswith("num_batches_tracked") and ".self_encoder." not in k]
        if missing or unknown:
            raise ValueError(f"weights: missing {missing}, unknown {unknown}")

    def newborn(self, lanes=1, angle=None):
        """The state a life begins with; the oscillator's angle is drawn unless given."""
        c, like = self.config, self.actor.head.weight
        theta = torch.full((lanes,), angle or 0.0, dtype=torch.float64)
        if angle is None:
            theta = 2 * math.pi * torch.rand_like(theta)
        zeros = functools.partial(torch.zeros, dtype=like.dtype, device=like.device)
        return State(zeros(lanes, c.memory_rows, c.width), zeros(lanes, c.state_rows, c.width), None,
                     torch.stack([theta.cos(), theta.sin()], -1).to(like), zeros(lanes, 1, c.width // 4),
                     zeros(lanes, 1, c.width))

    def sleeps_next(self, s):
        return s.clock % (self.config.wake + self.config.sleep) >= self.config.wake

    def tick(self, s):
        c = self.config
        w = 2 * math.pi / (c.wake + c.sleep)
        turn = s.oscillator.new_tensor([[math.cos(w), -math.sin(w)], [math.sin(w), math.cos(w)]])
        o = s.oscillator @ turn
        if c.oscillator_noise > 0:
            o = o + c.oscillator_noise * torch.randn_like(o)
        return s._replace(oscillator=o / (o.norm(dim=-1, keepdim=True) + 1e-6), clock=s.clock + 1)

    def wake_step(self, s, data):
        """One step over the patches data [B, S, P]."""
        s, before = self.tick(s), s.thought
        hormone = self.hypothalamus(s.state, s.oscillator, s.hormone)
        thought, compressed = self.sensor(data, s.mem, s.state, hormone, s.self)
        features, new_state, own = self.brain(thought, s.mem, s.state, hormone, s.self)
        seen = Seen(features, new_state, hormone, before, dict(
            compressor=compressed, sensor=thought, brain_features=features, brain_state=new_state))
        return s._replace(state=new_state, thought=features, hormone=hormone, self=own), seen

    def sleep_step(self, s):
        s = self.tick(s)
        dream = self.hippocampus.inception(s.mem, s.state, s.oscillator)
        hormone = self.hypothalamus(dream, s.oscillator, s.hormone)
        features, new_state, own = self.brain(dream, s.mem, s.state, hormone, s.self)
        mem, state = self.hippocampus.consolidate(s.mem, new_state)
        seen = Seen(features, new_state, hormone, None, dict(dream=dream))
        return s._replace(mem=mem, state=state, thought=new_state, hormone=hormone, self=own), seen

    def predict(self, seen, data, target):
        """The Actor's logits [B, S, P, 258] for the patches target, each told the bytes before; and its context."""
        told = target.clamp(min=0)[..., :-1]
        return self.actor(seen.features, seen.before, seen.hormone, data[..., -1], told)

    def loss(self, seen, data, target, live=None, some_live=False):
        """Targets count where `live` (default: where they are not -100, which has no byte and is told as byte 0). Who
        knows that some are live may say so: to look waits for a device."""
        live = target >= 0 if live is None else live
        if not some_live and not live.any():
            zero = seen.features.new_zeros(())
            return Loss(zero, zero, zero)
        told = target.masked_fill(~live, 0) if self.config.ignored_as_zero else target
        logits, _ = self.predict(seen, data, told)
        task = F.cross_entropy(logits.flatten(0, 2), target.masked_fill(~live, IGNORED).flatten(), ignore_index=IGNORED)
        predicted = self.brain.prob_proj(seen.new_state).mean()
        total = (predicted / math.sqrt(2) - math.sqrt(2) * task) ** 2 + 0.5 * predicted ** 2
        return Loss(total, task, predicted)

    @torch.no_grad()
    def generate(self, seen, previous, forced=None, temperature=0.0, top_k=0):
        """Says the patch that follows a step of one patch: bytes [B, P], and the logits before each. Greedy at
        temperature 0. The patch so far is computed anew for every byte; `previous` [B] are the bytes before it."""
        said = previous.new_zeros(previous.size(0), 0)
        forced = said if forced is None else forced
        logits = []
        for i in range(self.config.patch):
            y, _ = self.actor(seen.features, seen.before, seen.hormone, previous[:, None], said[:, None])
            y = y[:, 0, -1]
            logits.append(y)
            if i < forced.size(1):
                byte = forced[:, i:i + 1]
            elif temperature == 0:
                byte = y.argmax(-1, keepdim=True)
            else:
                if top_k > 0:
                    y = y.masked_fill(y < y.topk(top_k).values[:, -1:], -math.inf)
                byte = torch.multinomial((y / temperature).softmax(-1), 1)
            said = torch.cat([said, byte], 1)
        return said, torch.stack(logits, 1)
