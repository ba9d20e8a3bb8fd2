// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What docs/guide.md shows: every block of C++ there is a part of this file (scripts/check_guide), and what it claims is
// checked here. Any backend will do. It leaves a text and a life in the folder that it runs in.
#include <cmath>
#include <cstdio>
#include <fstream>

#include <ouro/ouro.hpp>

using B = ouro::default_backend;  // ouro::cpu where it is linked, else ouro::reference
using T = ouro::tensor<B>;

namespace {

int wrong = 0;

void check(bool ok, int line = __builtin_LINE()) {  // clang 14 has no std::source_location
  if (ok) return;
  ++wrong;
  std::printf("guide.cpp:%d: what the guide says is not so\n", line);
}

/// Whether f() throws an error of this kind.
template <class F>
bool fails(ouro::errc code, F const& f) {
  try {
    f();
  } catch (ouro::error const& e) {
    return e.code() == code;
  }
  return false;
}

void tensors() {
  T const x = T::from({1.f, 2.f, 3.f, 4.f, 5.f, 6.f}, {2, 3});  // a list or std::vector of float: f32
  T const exact = T::zeros({2, 3}, ouro::dtype::f64);
  T const half = T::full({3}, ouro::dtype::f32, 0.5);
  T const labels = T::from({2, 0}, {2});  // of int: i32
  ouro::random_stream random(ouro::seed{1});
  T const noise = ouro::normal<B>({2, 3}, ouro::dtype::f32, random.next());
  check(x.dims() == ouro::shape{2, 3} && x.dim(-1) == 3 && x.size() == 6 && labels.type() == ouro::dtype::i32);

  T const y = (x - 1.0) * half + x / 2.0;  // (2,3): operands broadcast, numbers too
  check(ouro::sum(y).item() == 18);
  check(y.values<double>()[5] == 5.5);  // on the host, in row-major order, converted

  T const column = ouro::slice(x, 1, 2, 1);   // axis, start, length: (2,1)
  T const turned = ouro::transpose(x, 0, 1);  // (3,2)
  check(column.values<float>() == std::vector<float>{3, 6});
  check(turned.values<float>() == std::vector<float>{1, 4, 2, 5, 3, 6} && !turned.contiguous());

  T a = T::zeros({4});
  T const b = a;            // one memory
  B::fill(a.write(), 1.0);  // which a leaves as it is written
  check(a.values<float>()[0] == 1 && b.values<float>()[0] == 0);

  T const stored = x.copy(ouro::dtype::bf16);  // half the bytes, 8 bits of precision
  check(stored.copy(ouro::dtype::f32).values<float>() == x.values<float>());

  check(fails(ouro::errc::shape, [&] { static_cast<void>(x + exact); }));
  check(exact.type() == ouro::dtype::f64 && noise.size() == 6 && b.unique() && !x.empty() && !T());
}

void gradients_of_a_function() {
  T const w = T::from({1.0, -2.0, 3.0}, {3});
  {
    ouro::tape<B> tape;
    tape.watch(w);
    T const loss = ouro::sum(ouro::square(w));
    tape.backward(loss);
    check(tape.gradient(w).values<double>() == std::vector<double>{2, -4, 6});
  }  // from here on everything is a plain value again

  {
    ouro::tape<B> tape;
    tape.watch(w);
    T const loss = ouro::sum(w * w.detach());
    tape.backward(loss);
    check(tape.gradient(w).values<double>() == std::vector<double>{1, -2, 3});
    ouro::tape<B> other;
    check(fails(ouro::errc::argument, [&] { tape.backward(loss); }));
    check(fails(ouro::errc::argument, [&] { other.watch(w); }));
    check(fails(ouro::errc::argument, [&] { other.watch(ouro::slice(w.copy(), 0, 0, 2)); }));
    T const unused = w.copy();
    other.watch(unused);
    check(other.gradient(unused).empty());
  }

  ouro::random_stream random(ouro::seed{2});
  ouro::tape<B> tape;
  T const x = ouro::normal<B>({6, 4}, ouro::dtype::f64, random.next());
  tape.watch(x);
  T const deep = ouro::checkpoint<B>({x}, [](std::vector<T> const& in) { return ouro::tanh(ouro::gelu(in[0])); });
  T const total = ouro::settle<B>({deep}, 3, [](std::int64_t part, std::vector<T> const& in) {
    return ouro::sum(ouro::square(ouro::slice(in[0], 0, 2 * part, 2)));
  });
  tape.backward(total);

  auto f = [](std::vector<T> const& in) { return ouro::sum(ouro::square(ouro::tanh(ouro::gelu(in[0])))); };
  check(ouro::gradient_error<B>({x.copy()}, f) < 1e-7);

  ouro::tape<B> plain;
  T const same = x.copy();
  plain.watch(same);
  plain.backward(f({same}));
  auto const p = plain.gradient(same).values<double>();
  auto const q = tape.gradient(x).values<double>();
  for (std::size_t i = 0; i < p.size(); ++i) check(std::abs(p[i] - q[i]) < 1e-12);
}

/// y = |x|, dx = sign(x) dy.
T absolute(T const& x) {
  std::vector<double> signs;
  for (double v : x.values<double>()) signs.push_back(v < 0 ? -1.0 : 1.0);
  T const sign = T::from(signs, x.dims(), x.type());
  return ouro::recorded<B>("absolute", sign * x.detach(), {&x},
                           [sign](T const& dy, ouro::gradients<B>& dx) { dx.give(0, sign * dy); });
}

void operation_of_ones_own() {
  T const x = T::from({-2.0, 0.5, 3.0}, {3});
  check(absolute(x).values<double>() == std::vector<double>{2, 0.5, 3});
  check(ouro::gradient_error<B>({x}, [](auto const& in) { return ouro::sum(ouro::square(absolute(in[0]))); }) < 1e-7);
}

struct perceptron {
  using backend = B;
  ouro::linear<B> hidden;
  ouro::linear<B> output;
  ouro::parameter<B> gain;  // (1)
  OURO_MODULE(perceptron, hidden, output, gain);

  perceptron(ouro::genesis<B>& g, std::int64_t in, std::int64_t width)
      : hidden(g, in, width), output(g, width, 1), gain(g.ones({1})) {
    gain.decay = 0;            // of the optimiser's weight decay
    gain.learning_rate = 0.5;  // of its learning rate
  }
  T operator()(ouro::context<B>& cx, T const& x) const { return gain * output(cx, ouro::tanh(hidden(cx, x))); }
};

void module_of_ones_own() {
  T const x = T::from({0.f, 0.f, 0.f, 1.f, 1.f, 0.f, 1.f, 1.f}, {4, 2});
  T const y = T::from({0.f, 1.f, 1.f, 0.f}, {4, 1});
  ouro::genesis<B> g(ouro::seed{1});
  perceptron model(g, 2, 8);
  auto const list = ouro::fields(model);  // hidden.weight, hidden.bias, output.weight, output.bias, gain
  ouro::adamw const rule{.learning_rate = 0.05, .weight_decay = 0.001, .warmup = 0};
  std::vector<ouro::moments<B>> moments;
  double error = 0;
  for (std::int64_t u = 0; u < 150; ++u) {
    ouro::gradient_list<B> gradients;
    {
      ouro::tape<B> tape;  // one for each update
      ouro::watch(tape, list);
      ouro::context<B> cx{.training = true};
      T const loss = ouro::mean(ouro::square(model(cx, x) - y));
      tape.backward(loss);
      gradients = ouro::gradients_of(tape, list);
      error = loss.item();
    }  // what is written must not be watched
    ouro::update_parameters(list, moments, gradients, rule, rule.rate(u));
  }
  check(error < 0.01 && ouro::parameter_count(model) == 34);

  ouro::safetensors_writer out;
  ouro::store_module(out, model);
  perceptron copy(g, 2, 8);
  ouro::load_module(ouro::safetensors_reader("perceptron", out.str()), copy);
  check(copy.gain.item() == model.gain.item());
  check(list[0].path == "hidden.weight" && list[4].path == "gain" && list[4].decay == 0);
}

/// A Sensor: a number for each lane → (B,1,D).
struct ear {
  using backend = B;
  using input_type = std::vector<float>;
  ouro::linear<B> project;
  OURO_MODULE(ear, project);

  T operator()(ouro::context<B>& cx, input_type const& x, ouro::state_view<B> const&, T const& hormone) const {
    return project(cx, T::from(x, {hormone.dim(0), 1, 1}, hormone.type()));
  }
};
static_assert(ouro::Sensor<ear, B>);

/// A Brain of one row, which is its thought as well: working' = tanh(W [x, working]).
struct cell {
  using backend = B;
  ouro::linear<B> mix;
  OURO_MODULE(cell, mix);

  ouro::brain_result<B> operator()(ouro::context<B>& cx, T const& x, ouro::state_view<B> const& s, T const&) const {
    T const next = ouro::tanh(mix(cx, ouro::concat({x, s.working}, 2)));
    return {next, next, s.self, {}};
  }
  ouro::brain_result<B> dream(ouro::context<B>&, T const&, ouro::state_view<B> const& s, T const&) const {
    return {{}, s.working, s.self, {}};
  }
};
static_assert(ouro::Brain<cell, B>);

/// An Actor: says a number for each lane; the loss is the mean squared error.
struct mouth {
  using backend = B;
  using input_type = std::vector<float>;
  using target_type = std::vector<float>;  // empty: nothing counts
  using output_type = std::vector<float>;
  ouro::linear<B> project;
  OURO_MODULE(mouth, project);

  T said(ouro::context<B>& cx, ouro::impression<B> const& seen) const {
    return ouro::reshape(project(cx, seen.now), {seen.now.dim(0)});
  }
  ouro::actor_loss<B> loss(ouro::context<B>& cx, ouro::impression<B> const& seen, input_type const&,
                           target_type const& target) const {
    if (target.empty()) return {};
    T const y = said(cx, seen);
    return {ouro::mean(ouro::square(y - T::from(target, y.dims(), y.type()))), y.size()};
  }
  output_type act(ouro::context<B>& cx, ouro::impression<B> const& seen, input_type const&) const {
    return said(cx, seen).values<float>();
  }
};
static_assert(ouro::Actor<mouth, B>);

using parrot = ouro::system<B, ear, cell, mouth, ouro::hypothalamus<B>, ouro::hippocampus<B>>;

parrot hatch(std::int64_t width) {
  ouro::genesis<B> g(ouro::seed{3});
  return {{{g, 1, width}},          // Sensor
          {{g, 2 * width, width}},  // Brain
          {{g, width, 1}},          // Actor
          {g, width},               // Hypothalamus
          {g, width, 2, 0.0},       // Hippocampus: heads, noise
          {.wake = 3, .sleep = 1}};
}

void creature_of_ones_own() {
  auto model = hatch(16);
  auto state = ouro::newborn<B>({.width = 16, .memory_rows = 4}, ouro::seed{5}, 16);  // 16 lanes
  ouro::trainer trainer{model, ouro::adamw{.learning_rate = 1e-2, .weight_decay = 0, .warmup = 10}};
  ouro::random_stream random(ouro::seed{4});
  auto hear = [&] { return ouro::uniform<B>({16}, ouro::dtype::f32, random.next(), -1, 1).values<float>(); };
  std::vector<float> before;
  double first = 0;
  double last = 0;
  for (int u = 0; u < 80; ++u) {
    std::vector<ouro::lesson<parrot>> lessons;
    for (int step = 0; step < 3; ++step) {
      auto const now = hear();
      lessons.push_back({now, before});  // say what was heard a step ago
      before = now;
    }
    auto const report = trainer.update(state, lessons);  // three steps awake and the sleep before them
    last = report.cross_entropy;                         // whatever the Actor's loss is
    if (u == 1) first = last;
  }
  std::printf("parrot: %.4f then %.4f\n", first, last);
  check(last < 0.25 * first && state.clock == 80 * 4 - 1);

  ouro::context<B> cx;
  auto const [next, seen] = ouro::live_on(model, cx, state, hear());  // asleep as often as it is time to, then awake
  check(model.actor.act(cx, seen, {}).size() == 16 && next.clock == state.clock + 2);
}

ouro::gridman_config small_one() {
  auto config = ouro::gridman_config::of(32, 2, 1, 1, 1);  // width, heads, layers of Sensor, Brain and Actor
  config.chunk = 8, config.state_rows = 4, config.memory_rows = 8;
  return config;
}

void kept_life() {
  ouro::remove_directory("guide.ouro");
  std::ofstream("guide.txt") << std::string(4000, '.').replace(0, 18, "To be, or not to be");

  using life = ouro::life<B>;
  {
    auto anna = life::create("guide.ouro", small_one(), ouro::seed{42}, ouro::seed{7});
    ouro::corpus book({"guide.txt"}, anna.model.config());
    auto trainer = anna.resume({.learning_rate = 3e-3, .warmup = 2});  // anna stays where she is from here on
    trainer.update(anna.state, book.cycle(2));
    anna.progress.cursor = book.position();
    anna.commit(trainer);
    check(fails(ouro::errc::storage, [] { life::open("guide.ouro"); }));  // is in use already
  }
  {
    auto anna = life::open("guide.ouro");
    ouro::corpus book({"guide.txt"}, anna.model.config());
    book.resume(anna.progress.cursor);  // in another text it stays at the beginning
    auto trainer = anna.resume({.learning_rate = 3e-3, .warmup = 2});
    auto const report = trainer.update(anna.state, book.cycle(2));
    check(report.update == 2 && !report.refused);
    anna.commit(trainer);
    check(anna.generation() == 3);
  }

  for (auto const& name : ouro::entries_of("guide.ouro"))
    if (name.starts_with("snapshot-3-")) std::ofstream("guide.ouro/" + name) << "no longer a snapshot";
  auto anna = life::open("guide.ouro");
  check(anna.generation() == 2 && !anna.passed_over().empty() && anna.progress.updates == 1);
  anna.commit();
  bool set_aside = false;
  for (auto const& name : ouro::entries_of("guide.ouro")) set_aside = set_aside || name.ends_with(".quarantine");
  check(set_aside && anna.generation() == 4);
}

void kept_parrot() {
  ouro::remove_directory("parrot.ouro");
  for (std::int64_t day = 1; day <= 2; ++day) {
    using nest = ouro::basic_life<parrot>;
    auto polly = nest::open_or_create("parrot.ouro", hatch(16),
                                      ouro::newborn<B>({.width = 16, .memory_rows = 4}, ouro::seed{5}));
    auto trainer = polly.resume({.learning_rate = 1e-2, .warmup = 10});
    trainer.update(polly.state, {{{0.5F}, {}}, {{0.25F}, {0.5F}}});
    polly.commit(trainer);
    check(polly.progress.updates == day && polly.generation() == day + 1);
  }
}

/// Of a text that is read once, from a state that stays as it is.
double bits_per_byte(ouro::gridman<B> const& model, ouro::state<B> s, ouro::corpus& text) {
  ouro::context<B> cx;
  double nats = 0;
  std::int64_t bytes = 0;
  for (ouro::text_lesson l; text.next(l);) {
    auto const [next, seen] = ouro::live_on(model, cx, s, l.input);
    s = next;
    auto const loss = model.actor.loss(cx, seen, l.input, l.target);
    if (loss.live == 0) continue;
    nats += loss.value.item() * static_cast<double>(loss.live);
    bytes += loss.live;
  }
  return nats / static_cast<double>(bytes) / std::log(2.0);
}

void speech() {
  auto const config = small_one();
  ouro::gridman<B> model{config, ouro::seed{42}};
  auto state = model.newborn(ouro::seed{7});

  ouro::speak(model, state, "It rains.", {.bytes = 0});  // hears, and says nothing
  ouro::speech_options const calm{.bytes = 20, .temperature = 0.5, .top_k = 10};
  std::string said;
  ouro::speak(model, state, "What do you see?", calm, [&](std::string const& part) { said += part; });
  state = ouro::sleep(model, state);

  auto twin = state;  // a value: it goes its own way
  check(ouro::speak(model, state, "Well?", calm) == ouro::speak(model, twin, "Well?", calm));

  ouro::corpus text({"guide.txt"}, config);
  auto const age = state.clock;
  double const judged = bits_per_byte(model, state, text);
  check(judged > 0 && judged < 20 && state.clock == age);
}

/// Σ tanh(x)², on any backend.
template <ouro::Backend Any>
double energy(std::vector<float> const& x, ouro::dtype type) {
  auto const on_it = ouro::tensor<Any>::from(x, {static_cast<std::int64_t>(x.size())}, type);
  return ouro::sum(ouro::square(ouro::tanh(on_it))).item();
}

void backends() {
  std::vector<float> const x{0.25f, -1.f, 3.f};
  check(std::abs(energy<B>(x, ouro::dtype::f32) - energy<ouro::reference>(x, ouro::dtype::f64)) < 1e-5);
  check(ouro::has_cuda || fails(ouro::errc::unavailable, [&] { energy<ouro::cuda>(x, ouro::dtype::f32); }));

  ouro::gridman<B> exact{small_one(), ouro::seed{42}, ouro::dtype::f64};  // all of it, and its states
  ouro::gridman<B> speaker{small_one(), ouro::seed{42}};
  speaker.actor.store_weights(ouro::dtype::bf16);  // half as much to read for every byte it says
  auto state = speaker.newborn(ouro::seed{7});
  check(!ouro::speak(speaker, state, "Well?", {.bytes = 4}).empty() && exact.type() == ouro::dtype::f64);
}

void errors() {
  try {
    ouro::matmul(T::zeros({2, 3}), T::zeros({2, 3}));
  } catch (ouro::error const& e) {
    check(e.code() == ouro::errc::shape);
    check(std::string(e.what()) == "[matmul] inner dimensions must agree, got (2,3) and (2,3)");
  }
}

}  // namespace

int main() {
  tensors();
  gradients_of_a_function();
  operation_of_ones_own();
  module_of_ones_own();
  creature_of_ones_own();
  kept_life();
  kept_parrot();
  speech();
  backends();
  errors();
  return wrong == 0 ? 0 : 1;
}
