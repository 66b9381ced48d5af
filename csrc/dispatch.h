// Run-time types of tensors and the step from them to template arguments.
//
// Functions here are static: kernels are compiled once per instruction set, and a shared copy could
// hold instructions that the machine lacks.
#pragma once

#include <cstdint>

namespace gnnkern {

// Storage only: arithmetic happens in float after a load.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// The values are those of gnnkern/_native.py.
enum class ScalarType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
enum class IndexType : int { kInt32 = 0, kInt64 = 1 };
enum class Reduce : int { kSum = 0, kMean = 1, kMax = 2, kMin = 3, kMul = 4, kLogSumExp = 5 };
enum class EdgeOp : int { kDot = 0, kAdd = 1, kSub = 2, kMul = 3, kDiv = 4, kCopy = 5 };
// Where the row of an operand lies: at the end of an edge that its CSR row is, at the other end, or
// on the edge.
enum class EdgeEnd : int { kDst = 0, kSrc = 1, kEdge = 2 };

// Halves accumulate in float32, double in double.
template <typename scalar_t>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <typename scalar_t>
using compute_of = typename Compute<scalar_t>::type;

static inline int64_t size_of(ScalarType type) {
  switch (type) {
    case ScalarType::kFloat64:
      return 8;
    case ScalarType::kFloat32:
      return 4;
    default:
      return 2;
  }
}

static inline int64_t compute_size_of(ScalarType type) {
  return type == ScalarType::kFloat64 ? 8 : 4;
}

// Types that models run in, which every set of kernels has.
static inline bool is_model_type(ScalarType type) {
  return type == ScalarType::kFloat32 || type == ScalarType::kBFloat16;
}

// Of AVX-512, kernels of other types are not compiled, nor called, where those of AVX2 are there:
// nothing is tuned for them, and compiling them takes a third of the time of the set.
#if defined(__AVX512F__) && defined(GNNKERN_HAVE_AVX2)
#define GNNKERN_MODEL_TYPES
#endif

// Calls body.template operator()<scalar_t>() for the run-time scalar type.
template <class Body>
static inline void dispatch_float(ScalarType type, Body&& body) {
  switch (type) {
    case ScalarType::kFloat32:
      return body.template operator()<float>();
    case ScalarType::kBFloat16:
      return body.template operator()<bfloat16>();
#if !defined(GNNKERN_MODEL_TYPES)
    case ScalarType::kFloat64:
      return body.template operator()<double>();
    case ScalarType::kFloat16:
      return body.template operator()<float16>();
#endif
    default:
      // The caller has taken a table of kernels that has the type.
      __builtin_trap();
  }
}

// Calls body.template operator()<index_t>() for the run-time index type.
template <class Body>
static inline void dispatch_index(IndexType type, Body&& body) {
  if (type == IndexType::kInt32) return body.template operator()<int32_t>();
  return body.template operator()<int64_t>();
}

}  // namespace gnnkern
