// Bits of half-precision numbers, and the conversions of CUDA: to nearest, ties to even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace cuda_host {

inline float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31;
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 0) {
    const float size = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -size : size;
  }
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | fraction << 13);
}

inline uint16_t half_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 31 << 15);
  const float size = std::fabs(value);
  if (std::isnan(value)) return 0x7fff;
  // From halfway between the largest number and the next power of two on.
  if (size >= 65520.0f) return sign | 0x7c00;
  // Without an exponent: a multiple of 2^-24, rounded as the processor rounds.
  if (size < 0x1p-14f) return sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p24f));
  const uint32_t positive = bits & 0x7fffffff;
  const uint32_t rounded = positive + 0xfff + (positive >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded >> 13) - (112u << 10));
}

inline float bfloat16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline uint16_t bfloat16_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace cuda_host
