// Launchers of dot-product attention.

#include "attention_backward.cuh"

namespace gnnkern::cuda {

void dot_attention(const AttentionArgs& args, void* stream) {
  launch_attention<Score::kDot>("dot_attention", args, stream);
}

void dot_attention_backward(const AttentionSourceArgs& args, void* stream) {
  launch_attention_by_source<Score::kDot>("dot_attention_backward", args, stream);
}

}  // namespace gnnkern::cuda
