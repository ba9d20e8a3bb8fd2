// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Cross entropy of byte predictions.
#pragma once

#include <ouro/ops/record.hpp>

namespace ouro {

/// −log softmax(logits)[target] in nats for each row: logits (R,V), targets i32 (R) → (R). A negative target is
/// ignored: its value and gradient are 0. Errors (argument): a target is not below V; on a device its value is NaN.
template <Backend B>
tensor<B> cross_entropy(tensor<B> const& logits, tensor<B> const& targets) {
  require(logits.rank() == 2 && targets.dims() == shape{logits.dim(0)} && targets.type() == dtype::i32, errc::shape,
          "cross_entropy", "needs logits (R,V) and i32 targets (R), got ", logits.dims(), " and ", targets.dims());
  auto flat = packed(logits);
  auto const labels = packed(targets);
  require_below("cross_entropy", labels, logits.dim(1));
  tensor<B> nll({logits.dim(0)}, logits.type());
  B::cross_entropy(nll.write(), flat.read(), labels.read());
  return recorded<B>("cross_entropy", std::move(nll), {&logits},
                     [flat = std::move(flat), labels](tensor<B> const& dnll, gradients<B>& dx) mutable {
                       auto const g = packed(dnll);
                       auto const d = dx.into(0, flat);  // as long as the logits, which nobody reads any more
                       if (d.wanted()) B::cross_entropy_gradient(d, flat.read(), labels.read(), g.read());
                     });
}

}  // namespace ouro
