// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the tests of the mixers against golden fixtures share: finding a file, and the measure of agreement.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <ouro/backend/cpu.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/nn/module.hpp>

namespace ouro_test {

/// The path of a fixture in the folder that the environment, else the build, calls OURO_GOLDEN.
inline std::string golden_path(std::string const& name) {
  char const* const folder = std::getenv("OURO_GOLDEN");
  return std::string(folder != nullptr ? folder : OURO_GOLDEN) + "/" + name;
}

/// RMS of the error / RMS of the value; infinite where sizes differ or a value is not finite.
template <class A, class B>
double rms_error(ouro::tensor<A> const& a, ouro::tensor<B> const& b) {
  auto const x = a.template values<double>();
  auto const y = b.template values<double>();
  if (x.size() != y.size() || x.empty()) return INFINITY;
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) return INFINITY;
    error += (x[i] - y[i]) * (x[i] - y[i]);
    size += y[i] * y[i];
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

/// A fixture's tensor on a backend.
template <class B>
ouro::tensor<B> stored(ouro::safetensors_reader const& file, std::string const& name, ouro::dtype type) {
  return ouro::load<B>(file.at(name), type, name);
}

/// Replaces every tensor of a module by the fixture's tensor `prefix` + its path.
template <class B, class Module>
void load_module(ouro::safetensors_reader const& file, std::string const& prefix, Module& module, ouro::dtype type) {
  for (auto const& f : ouro::fields(module)) *f.value = stored<B>(file, prefix + f.path, type);
}

/// check(backend, fixture, dtype, limit forward, limit of gradients) in f64 and f32 on every backend that is built.
template <class F>
void on_every_backend(std::string const& name, F const& check) {
  auto const path = golden_path(name);
  if (!std::filesystem::exists(path)) SKIP("no fixture " << path);
  auto const file = ouro::safetensors_reader::open(path);
  auto both = [&](auto backend) {
    check(backend, file, ouro::dtype::f64, 1e-9, 1e-9);
    check(backend, file, ouro::dtype::f32, 1e-5, 1e-4);
  };
  both(ouro::reference{});
#if defined(OURO_HAS_CPU)
  both(ouro::cpu{});
#endif
}

}  // namespace ouro_test
