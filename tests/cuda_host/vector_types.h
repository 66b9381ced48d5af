// dim3 and the vectors of a few numbers that one instruction loads.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define CUDA_HOST_VECTORS(number, name)                                                         \
  struct alignas(2 * sizeof(number)) name##2 { number x, y; };                                  \
  struct alignas(sizeof(number) == 8 ? 16 : 4 * sizeof(number)) name##4 { number x, y, z, w; }; \
  inline name##2 make_##name##2(number x, number y) { return {x, y}; }                          \
  inline name##4 make_##name##4(number x, number y, number z, number w) { return {x, y, z, w}; }

CUDA_HOST_VECTORS(signed char, char)
CUDA_HOST_VECTORS(unsigned char, uchar)
CUDA_HOST_VECTORS(short, short)
CUDA_HOST_VECTORS(unsigned short, ushort)
CUDA_HOST_VECTORS(int, int)
CUDA_HOST_VECTORS(unsigned, uint)
CUDA_HOST_VECTORS(long long, longlong)
CUDA_HOST_VECTORS(unsigned long long, ulonglong)
CUDA_HOST_VECTORS(float, float)
CUDA_HOST_VECTORS(double, double)

#undef CUDA_HOST_VECTORS
