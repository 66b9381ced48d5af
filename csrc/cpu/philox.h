// Dropout from a counter-based generator: which elements are kept depends on the seed and on the
// caller's edge position alone.
#pragma once

#include "../philox.h"
#include "items.h"

namespace gnnkern::GNNKERN_ISA {

typedef uint64_t vec_u64 __attribute__((vector_size(kVectorBytes)));
inline constexpr int kPhiloxLanes = kVectorBytes / 8;

// Products of the low halves of 64-bit lanes.
struct MultiplyLowHalves {
  vec_u64 operator()(vec_u64 a, vec_u64 b) const {
#if defined(__AVX512F__)
    return (vec_u64)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vec_u64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vec_u64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
  }
};

// Elements that wait for a full vector of blocks. With kWords = 4 a block serves four elements in
// sequence, with kWords = 1 the one whose number was pushed.
template <typename compute_t, int kWords>
class Dropper {
 public:
  Dropper(const Dropout& dropout, const compute_t* from, compute_t* to)
      : seed_(dropout.seed),
        threshold_(dropout_threshold(dropout.probability)),
        scale_(static_cast<compute_t>(1.0 / (1.0 - dropout.probability))),
        from_(from),
        to_(to) {}

  void push(uint64_t first_element) {
    element_[waiting_++] = first_element;
    if (waiting_ == kPhiloxLanes) flush();
  }

  void flush() {
    vec_u64 element;
    std::memcpy(&element, element_, sizeof(element));
    const PhiloxBlocks<vec_u64> blocks = philox(element >> 2, seed_, MultiplyLowHalves{});
    for (int lane = 0; lane < waiting_; ++lane) {
      for (int word = 0; word < kWords; ++word) {
        const uint64_t drawn = blocks.word[kWords == 4 ? word : element_[lane] & 3][lane];
        *to_++ = drawn >= threshold_ ? *from_ * scale_ : 0;
        ++from_;
      }
    }
    waiting_ = 0;
  }

 private:
  uint64_t seed_;
  uint64_t threshold_;
  compute_t scale_;
  const compute_t* from_;
  compute_t* to_;
  uint64_t element_[kPhiloxLanes] = {};
  int waiting_ = 0;
};

// to[i] = from[i] / (1 - probability) where element i is kept, otherwise 0, for an item's edges.
template <typename compute_t>
static inline void drop_edges(const Csr& csr, const PlanItem& item, int64_t heads,
                              const Dropout& dropout, const compute_t* from, compute_t* to) {
  const auto run = [&]<int kWords>() {
    Dropper<compute_t, kWords> dropper(dropout, from, to);
    for_each_caller_edge(csr, item, [&](int64_t, int64_t edge) {
      const uint64_t first = static_cast<uint64_t>(edge) * heads;
      for (int64_t head = 0; head < heads; head += kWords) dropper.push(first + head);
    });
    dropper.flush();
  };
  heads % 4 == 0 ? run.template operator()<4>() : run.template operator()<1>();
}

}  // namespace gnnkern::GNNKERN_ISA
