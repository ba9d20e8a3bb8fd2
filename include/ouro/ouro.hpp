// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// The whole library, for users. Never included inside it.
#pragma once

#include <ouro/actor/byte_actor.hpp>
#include <ouro/autodiff/gradient_check.hpp>
#include <ouro/autodiff/settle.hpp>
#include <ouro/autodiff/tape.hpp>
#include <ouro/brain/state_brain.hpp>
#include <ouro/concepts/actor.hpp>
#include <ouro/concepts/backend.hpp>
#include <ouro/concepts/brain.hpp>
#include <ouro/concepts/hippocampus.hpp>
#include <ouro/concepts/hormone_gate.hpp>
#include <ouro/concepts/hormone_networks.hpp>
#include <ouro/concepts/hypothalamus.hpp>
#include <ouro/concepts/scans.hpp>
#include <ouro/concepts/sensor.hpp>
#include <ouro/concepts/sequence_mixer.hpp>
#include <ouro/data/corpus.hpp>
#include <ouro/generate/speak.hpp>
#include <ouro/generate/utf8_stream.hpp>
#include <ouro/hippocampus/hippocampus.hpp>
#include <ouro/hypothalamus/hypothalamus.hpp>
#include <ouro/io/archive.hpp>
#include <ouro/io/file.hpp>
#include <ouro/io/hash.hpp>
#include <ouro/io/json.hpp>
#include <ouro/io/safetensors.hpp>
#include <ouro/life/config_text.hpp>
#include <ouro/life/life.hpp>
#include <ouro/life/store.hpp>
#include <ouro/meta/host_device.hpp>
#include <ouro/meta/module.hpp>
#include <ouro/nn/context.hpp>
#include <ouro/nn/exchange.hpp>
#include <ouro/nn/genesis.hpp>
#include <ouro/nn/hormone_layer.hpp>
#include <ouro/nn/hormone_receptor.hpp>
#include <ouro/nn/layer_norm.hpp>
#include <ouro/nn/linear.hpp>
#include <ouro/nn/mixers/attention.hpp>
#include <ouro/nn/mixers/hybrid.hpp>
#include <ouro/nn/mixers/layer_kinds.hpp>
#include <ouro/nn/mixers/mamba2.hpp>
#include <ouro/nn/mixers/row_runs.hpp>
#include <ouro/nn/mixers/rwkv7.hpp>
#include <ouro/nn/module.hpp>
#include <ouro/nn/orthogonal.hpp>
#include <ouro/nn/projection.hpp>
#include <ouro/nn/sequential.hpp>
#include <ouro/nn/state_transformer.hpp>
#include <ouro/ops/arithmetic.hpp>
#include <ouro/ops/batch_norm.hpp>
#include <ouro/ops/cross_entropy.hpp>
#include <ouro/ops/dropout.hpp>
#include <ouro/ops/exp.hpp>
#include <ouro/ops/gather_sum.hpp>
#include <ouro/ops/gelu.hpp>
#include <ouro/ops/hormone_gate.hpp>
#include <ouro/ops/hormone_networks.hpp>
#include <ouro/ops/log.hpp>
#include <ouro/ops/map.hpp>
#include <ouro/ops/matmul.hpp>
#include <ouro/ops/mix_rows.hpp>
#include <ouro/ops/movement.hpp>
#include <ouro/ops/noise.hpp>
#include <ouro/ops/norm.hpp>
#include <ouro/ops/normalize_rows.hpp>
#include <ouro/ops/record.hpp>
#include <ouro/ops/record_pair.hpp>
#include <ouro/ops/reduce.hpp>
#include <ouro/ops/relu.hpp>
#include <ouro/ops/rwkv7_scan.hpp>
#include <ouro/ops/scaled_dot_product_attention.hpp>
#include <ouro/ops/short_convolution.hpp>
#include <ouro/ops/sigmoid.hpp>
#include <ouro/ops/silu.hpp>
#include <ouro/ops/softmax.hpp>
#include <ouro/ops/softplus.hpp>
#include <ouro/ops/square.hpp>
#include <ouro/ops/square_root.hpp>
#include <ouro/ops/ssd_scan.hpp>
#include <ouro/ops/tanh.hpp>
#include <ouro/ops/unit.hpp>
#include <ouro/sensor/byte_sensor.hpp>
#include <ouro/sensor/patches.hpp>
#include <ouro/system/config.hpp>
#include <ouro/system/gridman.hpp>
#include <ouro/system/newborn.hpp>
#include <ouro/system/rhythm.hpp>
#include <ouro/system/state.hpp>
#include <ouro/system/system.hpp>
#include <ouro/tensor/dtype.hpp>
#include <ouro/tensor/elementary.hpp>
#include <ouro/tensor/error.hpp>
#include <ouro/tensor/host_memory.hpp>
#include <ouro/tensor/memory_pool.hpp>
#include <ouro/tensor/normal.hpp>
#include <ouro/tensor/random.hpp>
#include <ouro/tensor/shape.hpp>
#include <ouro/tensor/shared.hpp>
#include <ouro/tensor/short_text.hpp>
#include <ouro/tensor/tensor.hpp>
#include <ouro/tensor/view.hpp>
#include <ouro/train/adamw.hpp>
#include <ouro/train/diagnosis.hpp>
#include <ouro/train/lesson.hpp>
#include <ouro/train/trainer.hpp>

#include <ouro/backend/cpu.hpp>
#include <ouro/backend/cpu_gridman.hpp>
#include <ouro/backend/cuda.hpp>
#include <ouro/backend/reference.hpp>

namespace ouro {

/// The backend of programs that do not name one: CMake defines OURO_DEFAULT_BACKEND, else cpu if it is linked.
#if defined(OURO_DEFAULT_BACKEND)
using default_backend = OURO_DEFAULT_BACKEND;
#elif defined(OURO_HAS_CPU)
using default_backend = cpu;
#else
using default_backend = reference;
#endif

}  // namespace ouro
