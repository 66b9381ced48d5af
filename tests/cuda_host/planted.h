// Launchers of planted.cpp, for the tests of the executor.
#pragma once

#include <string>

namespace planted {

// Starts the kernel with the fault of that name.
void fault(const std::string& name);

void neighbour(int* out, bool in_warp, bool waits);                   // [64]
void order(int* out, int blocks, int threads);                        // [blocks * threads]
void indices(int* out);                                               // [288]
void poison(float* out, int blocks);                                  // [blocks, 2]
void shuffles(float* out, const float* in, int amount, int width);    // [4, 32] from [32]
void shuffles(double* out, const double* in, int amount, int width);  // [4, 32] from [32]
void votes(int* out, const int* in);                                  // [13, 32] from [32]
void atomics(int* out, const int* in, int blocks);                    // [9] from [blocks * 32]
void vector_atomics(float* out, const float* in, int blocks);         // [6] from [blocks * 32]
void conversions(float* from_half, float* from_bfloat16, unsigned short* to_half,  // [65536]
                 unsigned short* to_bfloat16, const float* in, int count);         // [count]

}  // namespace planted
