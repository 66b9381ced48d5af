// The launcher of sort_edges.cuh.

#include "kernels.h"
#include "sort.cuh"
#include "sort_edges.cuh"

namespace gnnkern::cuda {

namespace {

// Bits of a key: of the number of rows, behind which invalid edges sort.
int key_bits(int64_t num_rows) {
  int bits = 1;
  while (num_rows >> bits != 0) ++bits;
  return bits;
}

// Keys and positions, before and after, each aligned to 256 bytes, and CUB's own.
int64_t array_bytes(int64_t num_edges) { return blocks_of(num_edges * 4, 256) * 256; }

}  // namespace

int64_t sort_edges_bytes(int64_t num_edges, int64_t num_rows) {
  return 4 * array_bytes(num_edges) +
         static_cast<int64_t>(sort_pairs_bytes(num_edges, key_bits(num_rows)));
}

void sort_edges(const SortEdgesArgs& args, void* stream) {
  const bool is_wide = args.index_type == IndexType::kInt64;
  const Integers rows{args.rows, is_wide}, cols{args.cols, is_wide};
  const Integers begins{args.begins, is_wide}, numbers{args.numbers, is_wide};
  const int64_t blocks = blocks_of(args.num_edges, kPlanThreads);
  const int64_t bytes = array_bytes(args.num_edges);
  number_t* array[4];
  for (int i = 0; i < 4; ++i) {
    array[i] = reinterpret_cast<number_t*>(static_cast<char*>(args.workspace) + i * bytes);
  }
  const auto [keys, sorted_keys, positions, order] = array;
  if (args.num_edges > 0) {
    launch("sort_edges", edge_keys_kernel, {blocks}, kPlanThreads, 0, stream, keys, positions,
           static_cast<long long*>(args.status), rows, args.row_stride, cols, args.col_stride,
           args.num_edges, args.num_rows, args.num_cols);
    sort_pairs("sort_edges", static_cast<char*>(args.workspace) + 4 * bytes,
               static_cast<size_t>(args.workspace_bytes - 4 * bytes), keys, sorted_keys, positions,
               order, args.num_edges, key_bits(args.num_rows), stream);
  }
  dispatch_index(args.out_type, [&]<typename index_t>() {
    launch("sort_edges", row_begins_kernel<index_t>, {blocks_of(args.num_rows + 1, kPlanThreads)},
           kPlanThreads, 0, stream, static_cast<index_t*>(args.indptr),
           static_cast<const number_t*>(sorted_keys), args.num_rows, args.num_edges);
    launch("sort_edges", sorted_edges_kernel<index_t>, {blocks}, kPlanThreads, 0, stream,
           static_cast<index_t*>(args.indices), static_cast<index_t*>(args.edge_id),
           static_cast<const number_t*>(order), cols, args.col_stride, begins, args.num_begins,
           numbers, args.num_edges);
  });
}

}  // namespace gnnkern::cuda
