// Launchers of dot-product attention.

#include "attention_backward.cuh"

namespace gnnkern::cuda {

void dot_attention(const AttentionArgs& args, void* stream) {
  launch_attention<Score::kDot>("dot_attention", args, stream);
}

void dot_attention_backward(const AttentionSourceArgs& args, void* stream) {
  launch_attention_by_source<Score::kDot>("dot_attention_backward", args, stream);
}

void dot_attention_backward_query(const AttentionQueryArgs& given, void* stream) {
  AttentionQueryArgs args = given;
  AttentionShape& shape = args.shape;
  shape.lanes = head_lanes(shape, kScoreEdges<Score::kGat>);
  const bool aligned = rows_aligned(shape, args.grad_query, args.query_sum, args.key, args.edge_x);
  dispatch_vectors(shape.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    launch("dot_attention_backward", dot_query_kernel<scalar_t, lanes>, attention_grid(shape),
           dim3(kWalkThreads), 0, stream, args);
  });
  fold_sums(shape.walk, shape.dtype, shape.heads * shape.head_width, args.grad_query,
            args.query_sum, stream);
}

}  // namespace gnnkern::cuda
