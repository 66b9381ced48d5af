// Launchers of GATv2 attention.

#include "gatv2_backward.cuh"

namespace gnnkern::cuda {

namespace {

AttentionShape with_lanes(AttentionShape shape) {
  shape.lanes = head_lanes(shape, kGatv2Edges);
  return shape;
}

}  // namespace

void gatv2_attention(const AttentionArgs& args, void* stream) {
  launch_attention<Score::kGatv2>("gatv2_attention", args, stream);
}

int64_t gatv2_blocks(const AttentionShape& shape) { return attention_grid(with_lanes(shape)).x; }

int64_t gatv2_sign_bytes(const AttentionShape& shape) {
  const HeadLanes lanes = with_lanes(shape).lanes;
  return int64_t{lanes.tiles} << lanes.head;
}

void gatv2_attention_backward(const Gatv2BackwardArgs& given, void* stream) {
  Gatv2BackwardArgs args = given;
  AttentionShape& shape = args.shape;
  shape = with_lanes(shape);
  AttentionShape reverse = shape;
  reverse.walk = args.reverse;
  reverse = with_lanes(reverse);
  // Signs are of the columns that a lane holds: both walks share them out alike.
  const bool aligned =
      rows_aligned(shape, args.grad_x_dst, args.att_sum, args.grad_edge_x, args.dst_sum, args.x_src,
                   args.x_dst, args.att, args.edge_x, args.grad, args.grad_x_src, args.src_sum);
  Grid destinations = attention_grid(shape);
  destinations.x = args.num_sums;
  dispatch_vectors(shape.dtype, aligned, [&]<typename scalar_t, int lanes>() {
    launch("gatv2_attention_backward", gatv2_by_destination_kernel<scalar_t, lanes>, destinations,
           dim3(kWalkThreads), 0, stream, args,
           items_of(shape.walk, {shape.lanes.edge, shape.lanes.row}));
    if (!args.grad_x_src) return;
    args.shape.lanes = reverse.lanes;
    launch("gatv2_attention_backward", gatv2_by_source_kernel<scalar_t, lanes>,
           attention_grid(reverse), dim3(kWalkThreads), 0, stream, args);
  });
  const int64_t width = shape.heads * shape.head_width;
  fold_sums(shape.walk, shape.dtype, width, args.grad_x_dst, args.dst_sum, stream);
  if (args.grad_x_src) {
    fold_sums(args.reverse, shape.dtype, width, args.grad_x_src, args.src_sum, stream);
  }
}

}  // namespace gnnkern::cuda
