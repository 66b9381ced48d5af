#include "column_blocks.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace gnnkern {

namespace {

// Measured on an EPYC (L2 1 MB, L3 32 MB, 2 threads), sums in float32, ms whole and in blocks with
// the packing:
//   50 thousand rows read 200 times each, F = 64: 31 -> 30; F = 128: 129 -> 75; F = 256: 326 -> 149
//   12 thousand rows read 88 times each, F = 256: no difference; F = 512: 30 -> 20
//   170 thousand rows read 7 times each: a loss at every width.

// The least row of a block: two cache lines, which processors fetch together. Rows of one line
// take a third longer for what is done once per edge.
constexpr int64_t kLeastBytes = 128;
// Rows are read so often at least: the copy then moves a sixteenth of what the sum does.
constexpr int64_t kLeastReads = 32;
// Whole rows have tiles of at least four vectors where their width is a multiple of this: their
// messages are added one by one, as those of a block are.
constexpr int64_t kWholeTiles = 64;

// The C library may count the caches of a whole package, of which two threads reach one.
constexpr int64_t kMostLastLevel = 32 << 20;

int64_t find_last_level_bytes() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const int64_t last_level = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (last_level > 0) return std::min(last_level, kMostLastLevel);
#endif
  return kMostLastLevel;
}

const int64_t g_last_level_bytes = find_last_level_bytes();

enum class Mode { kAuto, kAlways, kNever };
std::atomic<Mode> g_mode{Mode::kAuto};

}  // namespace

int64_t block_columns(const RowReduceArgs& args) {
  const Mode mode = g_mode.load(std::memory_order_relaxed);
  if (mode == Mode::kNever || !is_model_type(args.dtype) || !args.csr.indices) return 0;
  if (args.statistics || args.wide_out || args.width % kWholeTiles != 0) return 0;
  if (args.reduce == Reduce::kMul || args.reduce == Reduce::kLogSumExp) return 0;
  const int64_t size = size_of(args.dtype);
  const int64_t head_width = args.weight ? args.width / args.heads : args.width;
  int64_t columns = kLeastBytes / size;
  // A block lies inside of one head.
  if (args.width <= columns || head_width % columns != 0) return 0;
  if (mode == Mode::kAlways) return columns;
  if (!is_much_read(args.csr.num_cols, args.csr.num_edges, args.width * size, g_last_level_bytes)) {
    return 0;
  }
  while (args.csr.num_cols * 2 * columns * size <= g_last_level_bytes / 8 &&
         2 * columns < args.width && head_width % (2 * columns) == 0) {
    columns *= 2;
  }
  return columns;
}

bool is_much_read(int64_t rows, int64_t edges, int64_t row_bytes, int64_t last_level_bytes) {
  // The last level holds a table of up to so much well, beside everything else.
  const bool is_far = rows * row_bytes > last_level_bytes * 3 / 8;
  const bool block_is_near = rows * kLeastBytes <= last_level_bytes / 4;
  return is_far && block_is_near && edges / kLeastReads >= rows;
}

int64_t packed_bytes(const RowReduceArgs& args) {
  return args.csr.num_cols * args.width * size_of(args.dtype);
}

int64_t sorted_weight_bytes(const RowReduceArgs& args) {
  return args.weight ? args.csr.num_edges * args.heads * compute_size_of(args.dtype) : 0;
}

void set_column_blocks(const std::string& mode) {
  if (mode == "auto") {
    g_mode = Mode::kAuto;
  } else if (mode == "always") {
    g_mode = Mode::kAlways;
  } else if (mode == "never") {
    g_mode = Mode::kNever;
  } else {
    throw std::invalid_argument("set_column_blocks: auto, always or never, got '" + mode + "'");
  }
}

}  // namespace gnnkern
