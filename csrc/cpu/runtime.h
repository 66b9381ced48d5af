// What the process knows about itself: instruction sets and threads.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace gnnkern {

// The kernels of one instruction set.
struct KernelTable {
  const char* name;
  // Whether rows have numbers of 64 bits.
  bool wide_rows;
  // Whether there are kernels of types other than those that models run in.
  bool all_types;
  void (*row_reduce)(const RowReduceArgs&);
  void (*message_reduce)(const RowReduceArgs&);
  void (*select_backward)(const SelectBackwardArgs&);
  void (*sddmm)(const SddmmArgs&);
  void (*segment_softmax)(const SegmentSoftmaxArgs&);
  void (*segment_gather)(const SegmentGatherArgs&);
  void (*segment_matmul)(const SegmentMatmulArgs&);
  void (*scatter_std)(const ScatterStdArgs&);
  void (*scale_by_group)(const ScaleByGroupArgs&);
  void (*gat_forward)(const GatForwardArgs&);
  void (*gat_backward)(const GatBackwardArgs&);
  void (*gat_pack)(const GatPackArgs&);
  void (*gatv2_forward)(const Gatv2ForwardArgs&);
  void (*gatv2_backward)(const Gatv2BackwardArgs&);
  void (*multi_reduce)(const MultiReduceArgs&);
  void (*multi_reduce_pack)(const MultiReducePackArgs&);
  void (*multi_reduce_backward)(const MultiReduceBackwardArgs&);
  void (*dot_forward)(const DotForwardArgs&);
  void (*dot_backward)(const DotBackwardArgs&);
  void (*dot_backward_query)(const DotQueryArgs&);
};

// The table in use: the best that this processor runs, unless another one was chosen.
const KernelTable& kernels();

// The same, or the best below it that has kernels of this type.
const KernelTable& kernels(ScalarType type);

// The same for a matrix: where its rows have numbers beyond 32 bits, the table whose kernels are
// compiled with wide ones. Throws std::runtime_error where the module has no such table.
const KernelTable& kernels(const Csr& csr);
const KernelTable& kernels(const Csr& csr, ScalarType type);

// Compiled instruction sets that this processor runs, best first.
std::vector<std::string> available_isas();

// Throws std::invalid_argument for a name that is not available.
void set_isa(const std::string& name);

// Registers the handler that makes children of fork use one thread.
void watch_fork();

}  // namespace gnnkern
