// SPDX-FileCopyrightText: The Ouro authors
// SPDX-License-Identifier: MIT
//
// Shared ownership of things that count their owners. One allocation, one pointer, and a header that every file can
// afford to include: <memory> alone takes longer to compile than all of tensor/.
#pragma once

#include <utility>

namespace ouro {

template <class T>
class shared;

/// The base of what `shared` owns.
class counted {
 public:
  counted() = default;
  counted(counted const&) = delete;
  counted& operator=(counted const&) = delete;

 protected:
  ~counted() = default;

 private:
  template <class T>
  friend class shared;
  long owners_ = 0;
};

/// An owner of a T, or null. Owners may come and go on several threads; the object itself is not locked.
template <class T>
class shared {
 public:
  constexpr shared() = default;
  constexpr shared(decltype(nullptr)) {}  // NOLINT: null is an owner of nothing
  /// The first owner of `new T(...)`, or one more.
  explicit shared(T* object) : object_(object) { join(); }
  shared(shared const& other) : object_(other.object_) { join(); }
  shared(shared&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <class Derived>
  requires requires(Derived* d, T*& t) { t = d; }
  shared(shared<Derived> const& other) : object_(other.get()) {  // NOLINT: as pointers convert
    join();
  }
  shared& operator=(shared other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~shared() {
    if (object_ != nullptr) leave();
  }

  [[nodiscard]] T* get() const { return object_; }
  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  /// True when this is the only owner.
  [[nodiscard]] bool unique() const {
    return object_ != nullptr && __atomic_load_n(&object_->counted::owners_, __ATOMIC_ACQUIRE) == 1;
  }
  friend bool operator==(shared const& a, shared const& b) { return a.object_ == b.object_; }

 private:
  void join() {  // the compilers' atomics, because <atomic> is not cheap either
    if (object_ != nullptr) __atomic_add_fetch(&object_->counted::owners_, 1, __ATOMIC_RELAXED);
  }
  [[gnu::noinline]] void leave() {  // one copy of what is destroyed, not one in every function
    if (__atomic_sub_fetch(&object_->counted::owners_, 1, __ATOMIC_ACQ_REL) == 0) delete object_;
  }

  T* object_ = nullptr;
};

/// A value to be shared.
template <class T>
struct boxed : counted {
  T value{};
};

/// An object with its first owner.
template <class T, class... Arguments>
shared<T> make_owned(Arguments&&... arguments) {
  return shared<T>(new T(std::forward<Arguments>(arguments)...));
}

}  // namespace ouro
