// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What the library ouro::cpu holds ready of the parts that systems are made of: a program that uses them on the cpu
// backend does not compile them again. (A Gridman around a mixer of one's own compiles in a third of the time.)
#pragma once

#include <ouro/backend/cpu.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/short_convolution.hpp>
#include <ouro/ops/softmax.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/train/adamw.hpp>

/// The operations and their tapes: `prefix` is `extern template` or `template`.
#define OURO_CPU_OPERATIONS(prefix)                                                                                   \
  prefix class tensor<cpu>;                                                                                           \
  prefix class gradients<cpu>;                                                                                        \
  prefix class tape<cpu>;                                                                                             \
  prefix class detail::recording<cpu>;                                                                                \
  prefix class detail::local_gradient<cpu>;                                                                           \
  prefix tensor<cpu> detail::settled(std::vector<tensor<cpu>> const&, std::int64_t, detail::computation<cpu> const&); \
  prefix tensor<cpu> detail::checkpointed(std::vector<tensor<cpu>> const&, shared<detail::computation<cpu>>);         \
  prefix void detail::postponed(detail::recording<cpu>&, std::vector<tensor<cpu>>, shared<detail::computation<cpu>>); \
  prefix tensor<cpu> add(tensor<cpu> const&, tensor<cpu> const&);                                                     \
  prefix tensor<cpu> subtract(tensor<cpu> const&, tensor<cpu> const&);                                                \
  prefix tensor<cpu> multiply(tensor<cpu> const&, tensor<cpu> const&);                                                \
  prefix tensor<cpu> divide(tensor<cpu> const&, tensor<cpu> const&);                                                  \
  prefix tensor<cpu> scale(tensor<cpu> const&, double);                                                               \
  prefix column_statistics<cpu> column_moments(tensor<cpu> const&);                                                   \
  prefix batch_norm_result<cpu> batch_norm(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, double,        \
                                           std::optional<dtype>);                                                     \
  prefix tensor<cpu> cross_entropy(tensor<cpu> const&, tensor<cpu> const&);                                           \
  prefix tensor<cpu> dropout(tensor<cpu> const&, double, random_draw);                                                \
  prefix tensor<cpu> exp(tensor<cpu> const&);                                                                         \
  prefix tensor<cpu> gather_sum(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, std::optional<dtype>);    \
  prefix tensor<cpu> gelu(tensor<cpu> const&);                                                                        \
  prefix tensor<cpu> hormone_gate(hormone_gate_inputs<cpu> const&);                                                   \
  prefix hormone_gate_result<cpu> hormone_gate_and_fold(hormone_gate_inputs<cpu> const&);                             \
  prefix std::vector<tensor<cpu>> hormone_networks(std::vector<hormone_network_inputs<cpu>> const&,                   \
                                                   tensor<cpu> const&);                                               \
  prefix tensor<cpu> map(char const*, unary, tensor<cpu> const&);                                                     \
  prefix tensor<cpu> matmul(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, std::optional<dtype>);        \
  prefix tensor<cpu> linear_map(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, std::optional<dtype>);    \
  prefix tensor<cpu> reshape(tensor<cpu> const&, shape const&);                                                       \
  prefix tensor<cpu> slice(tensor<cpu> const&, int, std::int64_t, std::int64_t);                                      \
  prefix tensor<cpu> reverse(tensor<cpu> const&, int);                                                                \
  prefix tensor<cpu> transpose(tensor<cpu> const&, int, int);                                                         \
  prefix tensor<cpu> expand(tensor<cpu> const&, shape const&);                                                        \
  prefix tensor<cpu> concat(std::vector<tensor<cpu>> const&, int);                                                    \
  prefix tensor<cpu> attach(tensor<cpu> const&, tensor<cpu> const&);                                                  \
  prefix tensor<cpu> normal(shape const&, dtype, random_draw);                                                        \
  prefix tensor<cpu> uniform(shape const&, dtype, random_draw, double, double);                                       \
  prefix tensor<cpu> normalize_rows(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, double,               \
                                    std::optional<dtype>);                                                            \
  prefix tensor<cpu> packed(tensor<cpu> const&);                                                                      \
  prefix tensor<cpu> sum(tensor<cpu> const&, int);                                                                    \
  prefix tensor<cpu> mean(tensor<cpu> const&, int);                                                                   \
  prefix tensor<cpu> sum(tensor<cpu> const&);                                                                         \
  prefix tensor<cpu> mean(tensor<cpu> const&);                                                                        \
  prefix tensor<cpu> scaled_dot_product_attention(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&,         \
                                                  attention_rule const&);                                             \
  prefix scan_result<cpu> short_convolution(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&,               \
                                            tensor<cpu> const&);                                                      \
  prefix scan_result<cpu> rwkv7_scan(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&,  \
                                     tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&);                     \
  prefix scan_result<cpu> ssd_scan(tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&,    \
                                   tensor<cpu> const&, tensor<cpu> const&, tensor<cpu> const&);                       \
  prefix tensor<cpu> sigmoid(tensor<cpu> const&);                                                                     \
  prefix tensor<cpu> silu(tensor<cpu> const&);                                                                        \
  prefix tensor<cpu> softmax(tensor<cpu> const&);                                                                     \
  prefix tensor<cpu> softplus(tensor<cpu> const&);                                                                    \
  prefix tensor<cpu> square(tensor<cpu> const&);                                                                      \
  prefix tensor<cpu> square_root(tensor<cpu> const&);                                                                 \
  prefix tensor<cpu> tanh(tensor<cpu> const&);                                                                        \
  prefix tensor<cpu> unit(tensor<cpu> const&, double);                                                                \
  prefix void watch(tape<cpu>&, std::vector<field<tensor<cpu>>> const&);                                              \
  prefix gradient_list<cpu> gradients_of(tape<cpu> const&, std::vector<field<tensor<cpu>>> const&);                   \
  prefix class parameter_update<cpu>;                                                                                 \
  prefix class next_statistics<cpu>

/// The modules that any system may be built of, and those components of Gridman that no mixer changes.
#define OURO_CPU_MODULES(prefix)                                                                    \
  prefix struct context<cpu>;                                                                       \
  prefix struct genesis<cpu>;                                                                       \
  prefix class detail::field_walk<cpu>;                                                             \
  prefix void detail::field_walk<cpu>::visit(compressor<cpu>&);                                     \
  prefix void detail::field_walk<cpu>::visit(byte_actor<cpu>&);                                     \
  prefix void detail::field_walk<cpu>::visit(hypothalamus<cpu>&);                                   \
  prefix void detail::field_walk<cpu>::visit(hippocampus<cpu>&);                                    \
  prefix void detail::field_walk<cpu>::visit(attention<cpu>&);                                      \
  prefix void detail::field_walk<cpu>::visit(hormone_receptor<cpu, layer_norm<cpu>>&);              \
  prefix void detail::field_walk<cpu>::visit(hormone_receptor<cpu, linear<cpu>>&);                  \
  prefix struct attention<cpu>;                                                                     \
  prefix struct hormone_receptor<cpu, layer_norm<cpu>>;                                             \
  prefix struct hormone_receptor<cpu, linear<cpu>>;                                                 \
  prefix struct hormone_layer<cpu, attention<cpu>>;                                                 \
  prefix std::vector<hormone_layer<cpu, attention<cpu>>> layer_stack(                               \
      genesis<cpu>&, std::int64_t, std::int64_t, std::int64_t, bool, std::string_view, row_policy); \
  prefix tensor<cpu> position_encoding<cpu>(std::vector<double> const&, std::int64_t, dtype);       \
  prefix struct self_encoder<cpu>;                                                                  \
  prefix struct compressor<cpu>;                                                                    \
  prefix struct byte_actor<cpu>;                                                                    \
  prefix struct hypothalamus<cpu>;                                                                  \
  prefix struct hippocampus<cpu>

#if defined(OURO_HAS_CPU)
namespace ouro {
OURO_CPU_OPERATIONS(extern template);
OURO_CPU_MODULES(extern template);
}  // namespace ouro
#endif
