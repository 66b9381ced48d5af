// Launchers of plan.cuh.

#include "kernels.h"
#include "plan.cuh"

namespace gnnkern::cuda {

void make_plan(const PlanArgs& args, void* stream) {
  if (args.num_edges == 0 || args.num_rows == 0) return;
  dispatch_index(args.index_type, [&]<typename index_t>() {
    launch("make_plan", plan_kernel<index_t>,
           {blocks_of(blocks_of(args.num_edges, args.chunk_edges), kPlanThreads)}, kPlanThreads, 0,
           stream, static_cast<index_t*>(args.plan), static_cast<const index_t*>(args.indptr),
           args.num_rows, args.num_edges, args.chunk_edges);
  });
}

void inverse(const InverseArgs& args, void* stream) {
  dispatch_index(args.index_type, [&]<typename index_t>() {
    launch("inverse", inverse_kernel<index_t>, {blocks_of(args.count, kPlanThreads)}, kPlanThreads,
           0, stream, static_cast<index_t*>(args.out),
           static_cast<const index_t*>(args.permutation), args.count);
  });
}

}  // namespace gnnkern::cuda
