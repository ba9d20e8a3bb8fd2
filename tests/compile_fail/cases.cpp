// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Types that are no models of the concepts, and the sentence each is refused with.
#include <ouro/backend/reference.hpp>
#include <ouro/system/gridman.hpp>

using B = ouro::reference;
using T = ouro::tensor<B>;
using cx = ouro::context<B>;

struct nothing {};

struct deaf_sensor {
  using input_type = T;
};
struct listless_actor {
  using input_type = T;
  using target_type = T;
  using output_type = T;
};
struct mute_actor : listless_actor {
  ouro::actor_loss<B> loss(cx&, ouro::impression<B> const&, T const&, T const&) const { return {}; }
};
struct foreign_actor : mute_actor {  // acts on what no byte_sensor perceives
  T act(cx&, ouro::impression<B> const&, T const&) const { return {}; }
};
struct awake_brain {
  ouro::brain_result<B> operator()(cx&, T const&, ouro::state_view<B> const&, T const&) const { return {}; }
};
struct forgetful {
  T inception(cx&, T const&, T const&, T const&, ouro::random_stream&) const { return {}; }
};
struct carrier {
  using carry = int;
  T forward(cx&, T const& x, ouro::segments, carry&) const { return x; }
};
struct placed {  // all that a mixer is made by
  using carry = int;
  placed() = default;
  placed(ouro::genesis<B>&, ouro::mixer_place const&) {}
};
struct stream_only : placed {
  using placed::placed;
  struct stream {};
  T forward(cx&, T const& x, ouro::segments, carry&, stream&) const { return x; }
  T step(cx&, T const& x, carry&, stream&) const { return x; }
};
struct no_stream_taken : placed {
  using placed::placed;
  struct stream {};
  T forward(cx&, T const& x, ouro::segments, carry&) const { return x; }
  T step(cx&, T const& x, carry&) const { return x; }
};
struct placeless : carrier {
  T step(cx&, T const& x, carry&) const { return x; }
};
struct unmade : placeless {
  unmade(ouro::genesis<B>&, ouro::mixer_place const&) {}
};
struct strange_module {
  using backend = B;
  std::string name;
  OURO_MODULE(strange_module, name);
};

//! SENSOR_TYPE a Sensor names what it perceives
//! SENSOR_CALL a Sensor is called as
//! BRAIN_CALL a Brain is called as
//! BRAIN_DREAM a Brain has `brain_result dream
//! ACTOR_TYPES an Actor names its types
//! ACTOR_LOSS an Actor has `actor_loss loss
//! ACTOR_ACT an Actor has `output_type act
//! GLAND a Hypothalamus is called as
//! HIPPO_DREAM a Hippocampus has `tensor inception
//! HIPPO_REST a Hippocampus has `consolidate
//! MIXER_CARRY a SequenceMixer names its carry
//! MIXER_STEP a SequenceMixer has `tensor step
//! MIXER_BOTH so has one with a `stream`, beside the form that takes it
//! MIXER_STREAM a SequenceMixer that names a `stream`
//! MIXER_DEFAULT a SequenceMixer is default-constructible
//! MIXER_PLACE a SequenceMixer is made from its place
//! SYSTEM_INPUT Sensor and Actor of a system have one `input_type`
//! ELEMENT_TYPE the elements of a tensor are
//! MODULE_MEMBER a member of a module must be a parameter
#if defined(SENSOR_TYPE)
static_assert(ouro::check_sensor<nothing, B>());
#elif defined(SENSOR_CALL)
static_assert(ouro::check_sensor<deaf_sensor, B>());
#elif defined(BRAIN_CALL)
static_assert(ouro::check_brain<nothing, B>());
#elif defined(BRAIN_DREAM)
static_assert(ouro::check_brain<awake_brain, B>());
#elif defined(ACTOR_TYPES)
static_assert(ouro::check_actor<nothing, B>());
#elif defined(ACTOR_LOSS)
static_assert(ouro::check_actor<listless_actor, B>());
#elif defined(ACTOR_ACT)
static_assert(ouro::check_actor<mute_actor, B>());
#elif defined(GLAND)
static_assert(ouro::check_hypothalamus<nothing, B>());
#elif defined(HIPPO_DREAM)
static_assert(ouro::check_hippocampus<nothing, B>());
#elif defined(HIPPO_REST)
static_assert(ouro::check_hippocampus<forgetful, B>());
#elif defined(MIXER_CARRY)
static_assert(ouro::check_sequence_mixer<nothing, cx, T>());
#elif defined(MIXER_STEP)
static_assert(ouro::check_sequence_mixer<carrier, cx, T>());
#elif defined(MIXER_BOTH)
static_assert(ouro::check_sequence_mixer<stream_only, cx, T>());
#elif defined(MIXER_STREAM)
static_assert(ouro::check_sequence_mixer<no_stream_taken, cx, T>());
#elif defined(MIXER_DEFAULT)
static_assert(ouro::check_sequence_mixer<unmade, cx, T>());
#elif defined(MIXER_PLACE)
static_assert(ouro::check_sequence_mixer<placeless, cx, T>());
#elif defined(SYSTEM_INPUT)
static_assert(sizeof(ouro::system<B, ouro::byte_sensor<B>, ouro::state_brain<B>, foreign_actor, ouro::hypothalamus<B>,
                                  ouro::hippocampus<B>>) > 0);
#elif defined(ELEMENT_TYPE)
auto lengths() { return T::from(std::vector<std::int64_t>{1}, {1}); }
#elif defined(MODULE_MEMBER)
auto list(strange_module& m) { return ouro::fields(m); }
#endif

// The control: the reference model's parts are models.
static_assert(ouro::check_sensor<ouro::byte_sensor<B>, B>() && ouro::check_brain<ouro::state_brain<B>, B>() &&
              ouro::check_actor<ouro::byte_actor<B>, B>() && ouro::check_hypothalamus<ouro::hypothalamus<B>, B>() &&
              ouro::check_hippocampus<ouro::hippocampus<B>, B>() &&
              ouro::check_sequence_mixer<ouro::attention<B>, cx, T>());
