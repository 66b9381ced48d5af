// Arguments of the attention kernels, which the three attention ops share.
#pragma once

#include <cstdint>

#include "dispatch.h"
#include "walk.h"

namespace gnnkern::cuda {

// What an edge's score is, of what its destination owns and its source's key:
//
//     gat     leaky(key + own + edge_score), all of them one number per head
//     dot     factor * <own, key + edge_x> + edge_score; edge_x is added to the value, too
//     gatv2   <att, leaky(own + key + edge_x)>; the key is the value
enum class Score : int { kGat = 0, kDot = 1, kGatv2 = 2 };

// How the lanes of a warp are shared out (attention_lanes.cuh): log2 of how many hold the columns
// of a head, the heads of an edge, and walk a row.
struct HeadLanes {
  int head;
  int edge;
  int row;
  // Of heads that are wider than what a warp holds.
  int tiles;
  int tile_columns;
};

// Element i, of the caller's edges times heads, is dropped where its random word is below
// `threshold`; others are multiplied by `scale`.
struct DropoutArgs {
  const int64_t* seed;  // [1], null: nothing is dropped
  uint32_t threshold;
  double scale;
};

// What every attention kernel takes. All tensors are contiguous.
struct AttentionShape {
  Walk walk;
  ScalarType dtype;
  int64_t heads;
  int64_t head_width;
  DropoutArgs dropout;
  // gat, gatv2: the slope below 0; dot: what products are multiplied by.
  double factor;
  // Set by the launcher.
  HeadLanes lanes;
};

struct AttentionArgs {
  AttentionShape shape;
  const void* own;         // [num_rows, heads, head_width]; gat: [num_rows, heads]
  const void* key;         // [num_cols, heads, head_width]; gat: [num_cols, heads]
  const void* value;       // [num_cols, heads, head_width]
  const void* att;         // gatv2: [heads, head_width]
  const void* edge_score;  // [E, heads] or null
  const void* edge_x;      // [E, heads, head_width] or null
  void* out;               // [num_rows, heads, head_width]
  void* wide_out;          // the same in the compute type, or null
  void* log_sum_exp;       // [num_rows, heads] of the compute type, as all below
  // States of chunks of long rows; null where there are none.
  void* largest;  // [num_chunks, heads]
  void* total;    // [num_chunks, heads]
  void* acc;      // [num_chunks, heads, head_width]
};

// What an edge needs of its destination: log-sum-exp, <out, grad> and, where there is one, the
// score.
struct AttentionStatisticsArgs {
  ScalarType dtype;
  int64_t num_rows;  // times heads
  int64_t head_width;
  void* statistics;         // [num_rows, 2 or 3] of the compute type
  const void* log_sum_exp;  // [num_rows] likewise
  const void* out;          // [num_rows, head_width] likewise
  const void* grad;         // [num_rows, head_width]
  const void* score;        // [num_rows] or null
};

// Of gat and dot, over the reversed graph: its rows are sources.
struct AttentionSourceArgs {
  AttentionShape shape;
  void* grad_value;        // [num_rows, heads, head_width]
  void* grad_key;          // [num_rows, heads, head_width]; gat: [num_rows, heads]
  void* grad_score;        // [E, heads] of the compute type; dot: of the dot products
  void* grad_edge_score;   // [E, heads] or null
  void* grad_edge_x;       // [E, heads, head_width] or null
  void* value_sum;         // [num_chunks, heads, head_width] sums of chunks, or null
  void* key_sum;           // [num_chunks, heads, head_width]; gat: [num_chunks, heads]
  const void* key;         // [num_rows, heads, head_width]; gat: [num_rows, heads]
  const void* value;       // [num_rows, heads, head_width]
  const void* query;       // dot: [num_cols, heads, head_width]
  const void* grad;        // [num_cols, heads, head_width]
  const void* statistics;  // [num_cols, heads, 2]; gat: [num_cols, heads, 3]
  const void* edge_score;  // [E, heads] or null
  const void* edge_x;      // [E, heads, head_width] or null
};

// Of dot, by destination: every row sums (key + edge_x) * grad_score over its edges.
struct AttentionQueryArgs {
  AttentionShape shape;
  void* grad_query;        // [num_rows, heads, head_width]
  void* query_sum;         // [num_chunks, heads, head_width] sums of chunks, or null
  const void* key;         // [num_cols, heads, head_width]
  const void* edge_x;      // [E, heads, head_width] or null
  const void* grad_score;  // [E, heads] of the compute type
};

// What the walk by destination leaves of every edge for the walk by source.
struct Gatv2Records {
  void* kept;        // [E, heads] alpha after dropout
  void* grad_score;  // [E, heads]
  // [E, heads, sign_bytes]: of each lane that held columns of the head, the bits of these.
  uint8_t* signs;
};

struct Gatv2BackwardArgs {
  AttentionShape shape;
  void* grad_x_dst;  // [num_dst, heads, head_width]
  // [num_sums, heads, head_width] what a block adds to the gradient of att: so many blocks walk.
  void* att_sum;
  int64_t num_sums;
  void* grad_edge_x;  // [E, heads, head_width] or null
  Gatv2Records records;
  void* dst_sum;           // [num_chunks, heads, head_width] sums of chunks, or null
  const void* x_src;       // [num_src, heads, head_width]
  const void* x_dst;       // [num_dst, heads, head_width]
  const void* att;         // [heads, head_width]
  const void* edge_x;      // [E, heads, head_width] or null
  const void* grad;        // [num_dst, heads, head_width]
  const void* statistics;  // [num_dst, heads, 2]
  // By source, unless grad_x_src is null: then nothing is recorded, either.
  Walk reverse;
  void* grad_x_src;  // [num_src, heads, head_width]
  void* src_sum;     // [reverse.num_chunks, heads, head_width] sums of chunks, or null
};

void gat_attention(const AttentionArgs& args, void* stream);
void dot_attention(const AttentionArgs& args, void* stream);
void gatv2_attention(const AttentionArgs& args, void* stream);
void attention_statistics(const AttentionStatisticsArgs& args, void* stream);
void gat_attention_backward(const AttentionSourceArgs& args, void* stream);
void dot_attention_backward(const AttentionSourceArgs& args, void* stream);
void dot_attention_backward_query(const AttentionQueryArgs& args, void* stream);

// How many blocks have a row to walk, and how many bytes of signs an edge has for each head.
int64_t gatv2_blocks(const AttentionShape& shape);
int64_t gatv2_sign_bytes(const AttentionShape& shape);
void gatv2_attention_backward(const Gatv2BackwardArgs& args, void* stream);

}  // namespace gnnkern::cuda
