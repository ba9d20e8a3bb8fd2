// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the tests of the mixers against golden fixtures share: finding a file, and the measure of agreement.
#pragma once

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

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

}  // namespace ouro_test
