// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// What a system learns from.
#pragma once

namespace ouro {

/// What one wake step perceives, and what it should have said.
template <class Input, class Target>
struct basic_lesson {
  Input input;
  Target target;
};

/// A lesson for a system; an update takes one for each of its wake steps.
template <class System>
using lesson = basic_lesson<typename System::input_type, typename System::target_type>;

}  // namespace ouro
