// How Python's numbers become the arguments of launchers, on every backend.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "dispatch.h"

namespace gnnkern {

namespace py = pybind11;

using Address = uintptr_t;

template <typename T = void>
static inline T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// A code as the enumeration that has `count` values.
template <typename Enum>
static inline Enum enumeration(const char* what, int code, int count) {
  if (code < 0 || code >= count) {
    throw py::value_error(std::string("unknown ") + what + " " + std::to_string(code));
  }
  return static_cast<Enum>(code);
}
static inline ScalarType scalar_type(int code) {
  return enumeration<ScalarType>("scalar type", code, 4);
}
static inline IndexType index_type(int code) {
  return enumeration<IndexType>("index type", code, 2);
}
static inline Reduce reduction(int code) { return enumeration<Reduce>("reduction", code, 6); }
static inline EdgeOp edge_op(int code) { return enumeration<EdgeOp>("edge op", code, 6); }
static inline EdgeEnd edge_end(int code) { return enumeration<EdgeEnd>("end of an edge", code, 3); }

}  // namespace gnnkern
