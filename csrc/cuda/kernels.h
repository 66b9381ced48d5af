// Launchers of CUDA kernels: they check nothing that Python has checked, never wait, and throw
// std::runtime_error where a launch fails. `stream` is a cudaStream_t.
//
// Structs of arguments, as on the CPU: pointers to device memory, sizes in elements.
#pragma once

#include <cstdint>
#include <string>

#include "dispatch.h"
#include "walk.h"

namespace gnnkern::cuda {

// -- runtime --------------------------------------------------------------------------------------

// Why this machine cannot run the kernels; empty where it can.
std::string unusable();

// -- halo -----------------------------------------------------------------------------------------

// out[i] = x[index[i]]: bytes are copied, of a dtype of at least 2 bytes.
struct GatherRowsArgs {
  void* out;          // [num_rows], contiguous
  const void* x;      // rows x_row_bytes apart
  const void* index;  // [num_rows]
  IndexType index_type;
  int64_t num_rows;
  int64_t row_bytes;
  int64_t x_row_bytes;
};
void gather_rows(const GatherRowsArgs& args, void* stream);

// out[target[r]] += x over the positions of `order` from begin[r] to begin[r + 1], in order;
// out[target[r]] += x[r] without them. Targets are distinct.
struct ScatterAddRowsArgs {
  void* out;           // rows out_stride apart
  const void* x;       // [m, width], contiguous
  const void* target;  // [num_rows]
  const void* begin;   // [num_rows + 1], or null
  const void* order;   // [m], or null
  ScalarType dtype;
  IndexType index_type;
  int64_t num_rows;
  int64_t width;
  int64_t out_stride;
};
void scatter_add_rows(const ScatterAddRowsArgs& args, void* stream);

}  // namespace gnnkern::cuda
