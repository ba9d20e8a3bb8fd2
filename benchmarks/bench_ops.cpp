// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Every primitive of the cpu backend in f32, at the shapes it has in a Gridman of width 128 and of width 384 (mini).
//
// `machine/…` come first and say what the others are to be measured against: a large product and a large copy. A counter
// is the work that the operation cannot do without, divided by the time: GFLOP/s counts multiplications and additions,
// GB/s each operand and result once. OURO_THREADS sets the threads; Google Benchmark's options all work (--help).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ouro/backend/cpu.hpp>
#include <ouro/tensor/tensor.hpp>

namespace {

using B = ouro::cpu;
using ouro::const_view;
using ouro::dtype;
using ouro::shape;
using ouro::view;
using tensor = ouro::tensor<B>;

/// What an operation has to do at least. A counter of 0 is not shown.
struct work {
  double operations = 0;
  double bytes = 0;
};

/// Registers a benchmark. `make` allocates the operands and returns the call to be timed.
template <class Make>
void measure(std::string const& name, work const& w, Make make) {
  auto run = [w, make](benchmark::State& state) {
    auto call = make();
    call();  // memory is touched and threads are there before the clock starts
    auto const start = std::chrono::steady_clock::now();
    for (auto _ : state) call();
    std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
    double const each = seconds.count() / static_cast<double>(std::max<std::int64_t>(1, state.iterations()));
    if (w.operations > 0) state.counters["GFLOP/s"] = w.operations / each / 1e9;
    if (w.bytes > 0) state.counters["GB/s"] = w.bytes / each / 1e9;
  };
  benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMillisecond);
}

std::uint64_t draws = 0;

/// Standard normal numbers.
tensor noise(shape const& dims) {
  tensor t(dims);
  B::normal(t.write(), {1, draws++});
  return t;
}

tensor positive(shape const& dims) {
  tensor t(dims);
  B::uniform(t.write(), {1, draws++}, 0.5, 1.5);
  return t;
}

tensor zeros(shape const& dims) { return tensor::zeros(dims); }

/// Indices below `classes`.
tensor indices(std::int64_t classes, shape const& dims) {
  ouro::random_draw const draw{2, draws++};
  std::vector<std::int32_t> v(static_cast<std::size_t>(dims.size()));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<std::int32_t>(draw.word(i) % static_cast<std::uint32_t>(classes));
  return tensor::from(v, dims);
}

/// Bytes of n tensors of these dimensions.
double bytes(double n, shape const& dims) { return 4 * n * static_cast<double>(dims.size()); }

constexpr double dropout_rate = 0.1;

/// The shapes of a Gridman in the reference's ratios.
struct sizes {
  std::int64_t width;                         // D
  std::int64_t heads = width / 64;            // H
  std::int64_t patch = width / 8;             // P
  std::int64_t chunk = width;                 // S, patches in a step and rows of input
  std::int64_t seen = 2 * width + width / 2;  // Mem and Read rows
  std::int64_t rows = 4 * width;              // T, of a StateTransformer: Mem | Read | Input | Write
  std::int64_t anchors = std::max<std::int64_t>(1, width / 128);
  std::int64_t patches = 2048 / patch;         // that the Actor treats at once
  std::int64_t tokens = patches * patch;       // N
  std::int64_t columns = chunk * (patch - 3);  // of the Sensor's convolution in a step
  [[nodiscard]] std::string name(std::string const& what) const { return what + "/D:" + std::to_string(width); }
};

void machine() {
  constexpr std::int64_t n = 2048;
  measure("machine/product/2048", {.operations = 2.0 * static_cast<double>(n * n * n)}, [] {
    return [a = noise({n, n}), b = noise({n, n}), c = zeros({n, n})]() mutable {
      B::matmul(c.write(), a.read(), b.read(), 1.0);
    };
  });
  shape const large{64 << 20};
  measure("machine/copy/256MiB", {.bytes = bytes(2, large)}, [large] {
    return
        [x = tensor::full(large, dtype::f32, 1.0), y = zeros(large)]() mutable { B::copy(y.write(), x.read(), false); };
  });
}

/// A linear map (M,K) → (M,N) and its two gradients: NT forward, NN towards the input, TN towards the weight.
void products(sizes const& s, std::string const& where, std::int64_t m, std::int64_t k, std::int64_t n) {
  work const w{.operations = 2.0 * static_cast<double>(m * k * n)};
  measure(s.name("product NT/" + where), w, [=] {
    return [x = noise({m, k}), weight = noise({n, k}), y = zeros({m, n})]() mutable {
      B::matmul(y.write(), x.read(), weight.read().transpose(0, 1), 1.0);
    };
  });
  measure(s.name("product NT, weight in bf16/" + where), w, [=] {
    return [x = noise({m, k}), weight = noise({n, k}).copy(ouro::dtype::bf16), y = zeros({m, n})]() mutable {
      B::matmul(y.write(), x.read(), weight.read().transpose(0, 1), 1.0);
    };
  });
  measure(s.name("product NN/" + where), w, [=] {
    return [dy = noise({m, n}), weight = noise({n, k}), dx = zeros({m, k})]() mutable {
      B::matmul(dx.write(), dy.read(), weight.read(), 1.0);
    };
  });
  measure(s.name("product TN/" + where), w, [=] {
    return [dy = noise({m, n}), x = noise({m, k}), dw = zeros({n, k})]() mutable {
      B::matmul({dw.write(), true}, dy.read().transpose(0, 1), x.read(), 1.0);
    };
  });
}

/// Queries (N,Tq,D) on keys (N,Tk,D), as slices of the projections that a layer makes.
void attention(sizes const& s, std::string const& where, std::int64_t lanes, std::int64_t queries, std::int64_t keys,
               ouro::visibility sees, double dropout) {
  std::int64_t const d = s.width;
  ouro::attention_rule const rule{.heads = s.heads, .scale = 0.125, .sees = sees, .dropout = dropout, .draw = {3, 1}};
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < queries; ++i) pairs += sees.count(i, keys);
  double const product = 2.0 * static_cast<double>(lanes * pairs * d);
  struct operands {
    tensor q, kv, y, lse;
    [[nodiscard]] const_view key() const { return kv.read().slice(2, 0, kv.dim(2) / 2); }
    [[nodiscard]] const_view value() const { return kv.read().slice(2, kv.dim(2) / 2, kv.dim(2) / 2); }
    void forward(ouro::attention_rule const& r) { B::attention(y.write(), lse.write(), q.read(), key(), value(), r); }
  };
  auto make = [=] {
    return operands{noise({lanes, queries, d}), noise({lanes, keys, 2 * d}), zeros({lanes, queries, d}),
                    zeros({lanes, rule.heads, queries})};
  };
  measure(s.name("attention/" + where), {.operations = 2 * product},
          [=] { return [o = make(), rule]() mutable { o.forward(rule); }; });
  measure(s.name("attention gradient/" + where), {.operations = 5 * product}, [=] {
    auto o = make();
    o.forward(rule);
    return [o = std::move(o), dy = noise({lanes, queries, d}), dq = zeros({lanes, queries, d}),
            dk = zeros({lanes, keys, d}), dv = zeros({lanes, keys, d}), rule]() mutable {
      B::attention_gradient(dq.write(), dk.write(), dv.write(), o.q.read(), o.key(), o.value(), o.y.read(),
                            o.lse.read(), dy.read(), rule);
    };
  });
}

/// The three receptors of a layer: a layer norm, D → 4D with GELU, dropout and the sum, 4D → D with the residual.
void hormone_gate(sizes const& s, std::string const& where, bool norm, std::int64_t spread) {
  std::int64_t const n = s.tokens;
  std::int64_t const d = s.width;
  bool const last = !norm && spread == 1;
  struct operands {
    tensor x, h, f, scale, bias, query_weight, query_bias, gate, proj_weight, proj_bias, residual, y, folded,
        statistics;
    bool gelu;
    [[nodiscard]] ouro::hormone_gate_operands read(bool with_residual) const {
      auto at = [](tensor const& t) { return t.empty() ? const_view{} : t.read(); };
      return {at(x),
              at(h),
              at(f),
              at(scale),
              at(bias),
              at(query_weight),
              at(query_bias),
              at(gate),
              at(proj_weight),
              at(proj_bias),
              with_residual ? at(residual) : const_view{},
              gelu,
              gelu ? dropout_rate : 0.0,
              {4, 1},
              1e-5};
    }
    void forward() {
      B::hormone_gate({y.write(), folded.empty() ? ouro::view{} : folded.write(), statistics.write()}, read(true));
    }
  };
  shape const wide{n, spread * d};
  auto make = [=] {
    return operands{noise({n, d}),
                    noise({1, d}),
                    norm ? tensor{} : noise(wide),
                    norm ? positive({d}) : tensor{},
                    noise({spread * d}),
                    positive({d}),
                    noise({d}),
                    noise({spread, d}),
                    positive({spread * d}),
                    noise({spread * d}),
                    last ? noise(wide) : tensor{},
                    zeros(wide),
                    spread > 1 ? zeros({n, d}) : tensor{},
                    zeros({n, ouro::hormone_gate_statistics}),
                    spread > 1};
  };
  double const x = bytes(1, {n, d});
  double const f = norm ? 0 : bytes(1, wide);
  double const residual = last ? bytes(1, wide) : 0;
  double const folded = spread > 1 ? x : 0;
  measure(s.name("hormone_gate/" + where), {.bytes = x + f + residual + bytes(1, wide) + folded},
          [=] { return [o = make()]() mutable { o.forward(); }; });
  measure(s.name("hormone_gate gradient/" + where), {.bytes = 2 * x + 2 * f + bytes(1, wide) + folded}, [=] {
    auto o = make();
    o.forward();
    auto like = [](tensor const& t) { return t.empty() ? tensor{} : zeros(t.dims()); };
    std::vector<tensor> to;
    for (auto const* t :
         {&o.x, &o.h, &o.f, &o.scale, &o.bias, &o.query_weight, &o.query_bias, &o.gate, &o.proj_weight, &o.proj_bias})
      to.push_back(like(*t));
    return [o = std::move(o), dy = noise(wide), dfolded = spread > 1 ? noise({n, d}) : tensor{},
            to = std::move(to)]() mutable {
      auto at = [&](std::size_t i) { return to[i].empty() ? ouro::destination{} : ouro::destination{to[i].write()}; };
      B::hormone_gate_gradient({at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)}, o.read(false),
                               o.statistics.read(), dy.read(), dfolded.empty() ? const_view{} : dfolded.read());
    };
  });
}

void norms(sizes const& s) {
  std::int64_t const d = s.width;
  shape const dims{s.rows, d};
  measure(s.name("layer_norm"), {.bytes = bytes(2, dims)}, [=] {
    return [x = noise(dims), w = positive({d}), b = noise({d}), y = zeros(dims), mean = zeros({dims[0]}),
            rstd = zeros({dims[0]})]() mutable {
      B::layer_norm(y.write(), mean.write(), rstd.write(), x.read(), w.read(), b.read(), 1e-5);
    };
  });
  measure(s.name("layer_norm gradient"), {.bytes = bytes(3, dims)}, [=] {
    return [x = noise(dims), w = positive({d}), dy = noise(dims), mean = noise({dims[0]}), rstd = positive({dims[0]}),
            dx = zeros(dims), dw = zeros({d}), db = zeros({d})]() mutable {
      B::layer_norm_gradient(dx.write(), dw.write(), db.write(), x.read(), mean.read(), rstd.read(), w.read(),
                             dy.read());
    };
  });
  measure(s.name("unit"), {.bytes = bytes(2, dims)}, [=] {
    return [x = noise(dims), y = zeros(dims), length = zeros({dims[0]})]() mutable {
      B::unit(y.write(), length.write(), x.read(), 1e-12);
    };
  });
  measure(s.name("unit gradient"), {.bytes = bytes(3, dims)}, [=] {
    return [y = noise(dims), length = positive({dims[0]}), dy = noise(dims), dx = zeros(dims)]() mutable {
      B::unit_gradient(dx.write(), y.read(), length.read(), dy.read(), 1e-12);
    };
  });
  measure(s.name("softmax"), {.bytes = bytes(2, dims)},
          [=] { return [x = noise(dims), y = zeros(dims)]() mutable { B::softmax(y.write(), x.read()); }; });
  measure(s.name("softmax gradient"), {.bytes = bytes(3, dims)}, [=] {
    return [y = positive(dims), dy = noise(dims), dx = zeros(dims)]() mutable {
      B::softmax_gradient(dx.write(), y.read(), dy.read());
    };
  });
  shape const columns{s.columns, 2 * d};
  measure(s.name("batch_norm"), {.bytes = bytes(2, columns)}, [=] {
    return [x = noise(columns), w = positive({2 * d}), b = noise({2 * d}), y = zeros(columns), mean = zeros({2 * d}),
            variance = zeros({2 * d})]() mutable {
      B::batch_norm(y.write(), mean.write(), variance.write(), x.read(), w.read(), b.read(), 1e-5);
    };
  });
  measure(s.name("batch_norm gradient"), {.bytes = bytes(3, columns)}, [=] {
    return [x = noise(columns), w = positive({2 * d}), dy = noise(columns), mean = noise({2 * d}),
            variance = positive({2 * d}), dx = zeros(columns), dw = zeros({2 * d}), db = zeros({2 * d})]() mutable {
      B::batch_norm_gradient(dx.write(), dw.write(), db.write(), x.read(), mean.read(), variance.read(), w.read(),
                             dy.read(), 1e-5);
    };
  });
}

void elementwise(sizes const& s) {
  shape const dims{s.tokens, 4 * s.width};
  using ouro::unary;
  for (auto const& [f, name] :
       {std::pair{unary::gelu, "gelu"}, std::pair{unary::tanh, "tanh"}, std::pair{unary::sigmoid, "sigmoid"},
        std::pair{unary::silu, "silu"}, std::pair{unary::exp, "exp"}}) {
    measure(s.name(name), {.bytes = bytes(2, dims)},
            [=, f = f] { return [=, x = noise(dims), y = zeros(dims)]() mutable { B::map(f, y.write(), x.read()); }; });
    measure(s.name(name + std::string(" gradient")), {.bytes = bytes(3, dims)}, [=, f = f] {
      return [=, saved = noise(dims), dy = noise(dims), dx = zeros(dims)]() mutable {
        B::map_gradient(f, dx.write(), saved.read(), dy.read());
      };
    });
  }
  measure(s.name("dropout"), {.bytes = bytes(2, dims)}, [=] {
    return [x = noise(dims), y = zeros(dims)]() mutable { B::dropout(y.write(), x.read(), dropout_rate, {5, 1}); };
  });
  measure(s.name("copy"), {.bytes = bytes(2, dims)},
          [=] { return [x = noise(dims), y = zeros(dims)]() mutable { B::copy(y.write(), x.read(), false); }; });
  measure(s.name("copy/transposed"), {.bytes = bytes(2, dims)}, [=] {
    return [x = noise({dims[1], dims[0]}), y = zeros(dims)]() mutable {
      B::copy(y.write(), x.read().transpose(0, 1), false);
    };
  });
  measure(s.name("fill"), {.bytes = bytes(1, dims)},
          [=] { return [y = zeros(dims)]() mutable { B::fill(y.write(), 1.0); }; });
  measure(s.name("scale"), {.bytes = bytes(2, dims)},
          [=] { return [x = noise(dims), y = zeros(dims)]() mutable { B::scale(y.write(), x.read(), 0.5); }; });
  measure(s.name("combine/add"), {.bytes = bytes(3, dims)}, [=] {
    return [a = noise(dims), b = noise(dims), y = zeros(dims)]() mutable {
      B::combine(ouro::binary::add, y.write(), a.read(), b.read());
    };
  });
  measure(s.name("combine/add a row"), {.bytes = bytes(2, dims)}, [=] {
    return [dims, a = noise(dims), b = noise({dims[1]}), y = zeros(dims)]() mutable {
      B::combine(ouro::binary::add, y.write(), a.read(), b.read().expand(dims));
    };
  });
  measure(s.name("reduce_sum/rows to one"), {.bytes = bytes(1, dims)}, [=] {
    return [x = noise(dims), y = zeros({1, dims[1]})]() mutable { B::reduce_sum(y.write(), x.read(), 1.0); };
  });
  measure(s.name("reduce_sum/all"), {.bytes = bytes(1, dims)}, [=] {
    return [x = noise(dims), y = zeros({1, 1})]() mutable { B::reduce_sum(y.write(), x.read(), 1.0); };
  });
  measure(s.name("sum_of_squares"), {.bytes = bytes(1, dims)}, [=] {
    return [x = noise(dims), y = tensor({1}, ouro::dtype::f64)]() mutable {
      auto const all = x.read();
      B::sum_of_squares(y.write(), &all, 1);
    };
  });
  measure(s.name("scale_by"), {.bytes = bytes(3, dims)}, [=] {
    return [x = noise(dims), y = zeros(dims), f = noise({1})]() mutable {
      auto const from = x.read();
      ouro::destination const to{y.write(), true};
      B::scale_by(&to, &from, 1, f.read());
    };
  });
  shape const rows{s.rows, s.width};
  measure(s.name("normal"), {.bytes = bytes(1, rows)}, [=] {
    return [y = zeros(rows)]() mutable { B::normal(y.write(), {6, 1}); };
  });
  measure(s.name("uniform"), {.bytes = bytes(1, rows)}, [=] {
    return [y = zeros(rows)]() mutable { B::uniform(y.write(), {6, 2}, 0, 1); };
  });
  shape const weight{4 * s.width, s.width};
  measure(s.name("adamw"), {.bytes = bytes(7, weight)}, [=] {
    return [p = noise(weight), m = zeros(weight), v = zeros(weight), g = noise(weight)]() mutable {
      ouro::adamw_update const update{
          p.write(),
          m.write(),
          v.write(),
          g.read(),
          {.learning_rate = 1e-4, .weight_decay = 0.01, .correction1 = 0.1, .correction2 = 0.001}};
      B::adamw(&update, 1);
    };
  });
}

void tables(sizes const& s) {
  std::int64_t const vocabulary = 258;
  shape const logits{s.tokens, vocabulary};
  measure(s.name("cross_entropy"), {.bytes = bytes(1, logits)}, [=] {
    return [x = noise(logits), targets = indices(vocabulary, {logits[0]}), nll = zeros({logits[0]})]() mutable {
      B::cross_entropy(nll.write(), x.read(), targets.read());
    };
  });
  measure(s.name("cross_entropy gradient"), {.bytes = bytes(2, logits)}, [=] {
    return [x = noise(logits), targets = indices(vocabulary, {logits[0]}), dnll = noise({logits[0]}),
            dx = zeros(logits)]() mutable {
      B::cross_entropy_gradient(dx.write(), x.read(), targets.read(), dnll.read());
    };
  });
  shape const choices{64, vocabulary};
  measure(s.name("sample/64 rows"), {.bytes = bytes(1, choices)}, [=] {
    ouro::sampling_rule const rule{.temperature = 0.4, .top_k = 10, .draw = {6, 3}};
    return [x = noise(choices), chosen = tensor({choices[0]}, ouro::dtype::i32), rule]() mutable {
      B::sample(chosen.write(), x.read(), rule);
    };
  });
  // The Sensor's convolution over bytes: eight rows of a table for each column.
  std::int64_t const taps = 8;
  shape const table{taps, vocabulary, 2 * s.width};
  shape const y{s.columns, 2 * s.width};
  work const w{.operations = static_cast<double>(taps * y.size()), .bytes = bytes(1, y)};
  measure(s.name("gather_sum"), w, [=] {
    return [t = noise(table), at = indices(vocabulary, {y[0], taps}), out = zeros(y)]() mutable {
      B::gather_sum(out.write(), t.read(), at.read());
    };
  });
  measure(s.name("scatter_sum"), w, [=] {
    return [dt = zeros(table), at = indices(vocabulary, {y[0], taps}), dy = noise(y)]() mutable {
      B::scatter_sum(dt.write(), at.read(), dy.read());
    };
  });
}

/// The recurrences of the other two mixers, over the rows of a StateTransformer.
void scans(sizes const& s) {
  std::int64_t const t = s.rows;
  std::int64_t const d = s.width;
  std::int64_t const h = s.heads;
  std::int64_t const k = d / h;
  shape const x{1, t, d};
  shape const memory{1, h, k, k};
  struct rwkv7 {
    tensor r, w, k, v, a, b, state;
    [[nodiscard]] ouro::rwkv7_operands read() const {
      return {r.read(), w.read(), k.read(), v.read(), a.read(), b.read(), state.read()};
    }
    ouro::rwkv7_gradients write() {
      return {r.write(), w.write(), k.write(), v.write(), a.write(), b.write(), state.write()};
    }
  };
  // a and b small: S stays bounded, as in the model.
  auto small = [](shape const& dims) {
    tensor z = noise(dims);
    B::scale(z.write(), z.copy().read(), 0.05);
    return z;
  };
  auto rwkv7_noise = [=] { return rwkv7{noise(x), noise(x), small(x), noise(x), small(x), small(x), noise(memory)}; };
  // Per row and head: S a, the decay, two outer products and S r.
  measure(s.name("rwkv7_scan"), {.operations = 9.0 * static_cast<double>(t * d * k)}, [=] {
    return [in = rwkv7_noise(), y = zeros(x), last = zeros(memory)]() mutable {
      B::rwkv7_scan(y.write(), last.write(), in.read());
    };
  });
  measure(s.name("rwkv7_scan gradient"), {}, [=] {
    return [in = rwkv7_noise(), dy = noise(x), dlast = noise(memory),
            to = rwkv7{zeros(x), zeros(x), zeros(x), zeros(x), zeros(x), zeros(x), zeros(memory)}]() mutable {
      B::rwkv7_scan_gradient(to.write(), in.read(), dy.read(), dlast.read());
    };
  });

  struct ssd {
    tensor x, step, rate, b, c, skip, state;
    [[nodiscard]] ouro::ssd_operands read() const {
      return {x.read(), step.read(), rate.read(), b.read(), c.read(), skip.read(), state.read()};
    }
    ouro::ssd_gradients write() {
      return {x.write(), step.write(), rate.write(), b.write(), c.write(), skip.write(), state.write()};
    }
  };
  auto ssd_noise = [=] {
    tensor rate = positive({h});
    B::scale(rate.write(), rate.copy().read(), -1.0);
    return ssd{noise(x), positive({1, t, h}), rate, noise({1, t, k}), noise({1, t, k}), noise({h}), noise(memory)};
  };
  // Per row and head: the decay, an outer product and S c.
  measure(s.name("ssd_scan"), {.operations = 5.0 * static_cast<double>(t * d * k)}, [=] {
    return [in = ssd_noise(), y = zeros(x), last = zeros(memory)]() mutable {
      B::ssd_scan(y.write(), last.write(), in.read());
    };
  });
  measure(s.name("ssd_scan gradient"), {}, [=] {
    return
        [in = ssd_noise(), dy = noise(x), dlast = noise(memory),
         to = ssd{zeros(x), zeros({1, t, h}), zeros({h}), zeros({1, t, k}), zeros({1, t, k}), zeros({h}),
                  zeros(memory)}]() mutable { B::ssd_scan_gradient(to.write(), in.read(), dy.read(), dlast.read()); };
  });

  struct convolution {
    tensor x, window, weight, bias;
    [[nodiscard]] ouro::short_convolution_operands read() const {
      return {x.read(), window.read(), weight.read(), bias.read()};
    }
    ouro::short_convolution_gradients write() { return {x.write(), window.write(), weight.write(), bias.write()}; }
  };
  auto convolution_noise = [=] { return convolution{noise(x), noise({1, 3, d}), noise({d, 4}), noise({d})}; };
  measure(s.name("short_convolution"), {.bytes = bytes(2, x)}, [=] {
    return [in = convolution_noise(), y = zeros(x)]() mutable { B::short_convolution(y.write(), in.read()); };
  });
  measure(s.name("short_convolution gradient"), {.bytes = bytes(3, x)}, [=] {
    return [in = convolution_noise(), dy = noise(x),
            to = convolution{zeros(x), zeros({1, 3, d}), zeros({d, 4}), zeros({d})}]() mutable {
      B::short_convolution_gradient(to.write(), in.read(), dy.read());
    };
  });
}

}  // namespace

int main(int argc, char** argv) {
  machine();
  for (std::int64_t const width : {128, 384}) {
    sizes const s{.width = width};
    products(s, "StateTransformer D to 4D", s.rows, width, 4 * width);
    products(s, "StateTransformer 4D to D", s.rows, 4 * width, width);
    products(s, "Actor D to 4D", s.tokens, width, 4 * width);
    products(s, "Actor 4D to D", s.tokens, 4 * width, width);
    products(s, "Actor D to D", s.tokens, width, width);
    products(s, "Actor head", s.tokens, width, 258);
    ouro::visibility const sandwich{s.seen, s.chunk, 0};
    attention(s, "sandwich", 1, s.rows, s.rows, sandwich, 0);
    attention(s, "sandwich with dropout", 1, s.rows, s.rows, sandwich, dropout_rate);
    attention(s, "Actor itself", s.patches, s.patch, s.patch, {0, s.patch, 0}, 0);
    attention(s, "Actor itself with dropout", s.patches, s.patch, s.patch, {0, s.patch, 0}, dropout_rate);
    attention(s, "Actor across", s.patches, s.patch, 2 * s.anchors, {}, 0);
    hormone_gate(s, "layer norm", true, 1);
    hormone_gate(s, "D to 4D", false, 4);
    hormone_gate(s, "4D to D", false, 1);
    norms(s);
    elementwise(s);
    tables(s);
    scans(s);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("ouro", ouro::cpu_description());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
