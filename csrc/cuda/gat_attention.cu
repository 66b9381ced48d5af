// Launchers of GAT attention.

#include "attention_backward.cuh"

namespace gnnkern::cuda {

void gat_attention(const AttentionArgs& args, void* stream) {
  launch_attention<Score::kGat>("gat_attention", args, stream);
}

void gat_attention_backward(const AttentionSourceArgs& args, void* stream) {
  launch_attention_by_source<Score::kGat>("gat_attention_backward", args, stream);
}

}  // namespace gnnkern::cuda
