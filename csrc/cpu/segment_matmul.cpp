// Matrix products per segment: every row of x times the matrix of its segment, and the sum over a
// segment of the outer products of two rows.

#include "items.h"
#include "matmul_tile.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Multiply-adds handed to a thread at once: a few times what packing a matrix costs.
constexpr int64_t kTaskWork = 1 << 20;
constexpr int64_t kLeastTaskRows = 256;
// Segments below this many rows read the matrix where it lies: packing would cost more.
constexpr int64_t kPackRows = 24;

template <typename scalar_t>
struct SegmentMatmul {
  using compute_t = compute_of<scalar_t>;
  using V = vec<compute_t>;
  static constexpr int W = kLanes<compute_t>;
  static constexpr bool kWide = std::is_same_v<scalar_t, compute_t>;
  const SegmentMatmulArgs& args;
  const scalar_t* x = static_cast<const scalar_t*>(args.x);
  const scalar_t* y = static_cast<const scalar_t*>(args.y);
  Panels<compute_t> panels{args.out_width};
  int64_t width = args.width;

  int64_t row_of(int64_t edge) const { return source_row(args.csr, edge); }
  compute_t* stage(int thread) const {
    return reinterpret_cast<compute_t*>(args.workspace.stage + thread * args.workspace.stage_bytes);
  }

  // -- out[e] = x[e] weight[r] + bias[r] ---------------------------------------------------------

  struct Right {
    const compute_t* panels;
    int64_t panel_step;
    int64_t row_step;
    const compute_t* bias;
  };

  // The rows [begin, end) of one segment, at most kMatmulBlockRows.
  void multiply_rows(int64_t begin, int64_t end, const Right& right, compute_t* staged) const {
    const compute_t* rows[kMatmulBlockRows];
    for (int64_t edge = begin; edge < end; ++edge) {
      const scalar_t* from = x + row_of(edge) * args.x_stride;
      if constexpr (kWide) {
        rows[edge - begin] = from;
      } else {
        compute_t* copy = staged + (edge - begin) * width;
        convert(copy, from, width);
        rows[edge - begin] = copy;
      }
    }
    auto* const out = static_cast<scalar_t*>(args.out);
    const int64_t out_width = args.out_width;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t row_step = right.row_step ? right.row_step : panels.vectors(panel) * W;
      const int64_t column = panel * Panels<compute_t>::kColumns;
      const int last_lanes = panels.lanes(panel, panels.vectors(panel) - 1);
      for_each_tile(
          end - begin, panels.vectors(panel), [&]<int kRows, int kVectors>(int64_t first) {
            V acc[kRows][kVectors];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) {
              const V start = right.bias ? load(right.bias + column + v * W) : V{};
#pragma GCC unroll 8
              for (int r = 0; r < kRows; ++r) acc[r][v] = start;
            }
            multiply_tile<kRows, kVectors, compute_t>(
                acc, rows + first, 1, right.panels + panel * right.panel_step, row_step, width);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
              scalar_t* to = out + row_of(begin + first + r) * out_width + column;
#pragma GCC unroll 8
              for (int v = 0; v < kVectors - 1; ++v) store(to + v * W, acc[r][v]);
              store_lanes(to + (kVectors - 1) * W, acc[r][kVectors - 1], last_lanes);
            }
          });
    }
  }

  // The edges [begin, end) of one segment.
  void multiply_part(int64_t segment, int64_t begin, int64_t end, int thread) const {
    compute_t* packed = stage(thread);
    compute_t* bias = packed + width * panels.padded();
    compute_t* staged = bias + panels.padded();
    const auto* weight = static_cast<const scalar_t*>(args.weight) + segment * args.weight_stride;
    Right right{packed, width * Panels<compute_t>::kColumns, 0, nullptr};
    bool in_place = false;
    if constexpr (kWide) {
      in_place = args.weight_col_stride == 1 && args.out_width % W == 0 && end - begin < kPackRows;
      if (in_place) {
        right = {weight, Panels<compute_t>::kColumns, args.weight_row_stride, nullptr};
      }
    }
    if (!in_place) {
      pack_panels(weight, args.weight_row_stride, args.weight_col_stride, width, panels, packed);
    }
    if (args.bias) {
      convert(bias, static_cast<const scalar_t*>(args.bias) + segment * args.out_width,
              args.out_width);
      for (int64_t i = args.out_width; i < panels.padded(); ++i) bias[i] = 0;
      right.bias = bias;
    }
    for (int64_t from = begin; from < end; from += kMatmulBlockRows) {
      multiply_rows(from, from + kMatmulBlockRows < end ? from + kMatmulBlockRows : end, right,
                    staged);
    }
  }

  // Rows stand for themselves, so that tasks may cut segments anywhere.
  void multiply() const {
    const int64_t rows_of_work = kTaskWork / (width * args.out_width + 1);
    const int64_t task_rows = rows_of_work > kLeastTaskRows ? rows_of_work : kLeastTaskRows;
    const int64_t num_edges = args.csr.num_edges;
    const int64_t tasks = (num_edges + task_rows - 1) / task_rows;
    parallel_tasks(tasks, args.workspace.threads, [&](int64_t task, int thread) {
      const int64_t end = (task + 1) * task_rows < num_edges ? (task + 1) * task_rows : num_edges;
      int64_t begin = task * task_rows;
      int64_t segment = 0;
      for (int64_t past = args.csr.num_rows; past - segment > 1;) {
        const int64_t middle = segment + (past - segment) / 2;
        (row_begin(args.csr, middle) <= begin ? segment : past) = middle;
      }
      for (; begin < end; ++segment) {
        const int64_t past = row_begin(args.csr, segment + 1);
        const int64_t to = past < end ? past : end;
        if (to > begin) multiply_part(segment, begin, to, thread);
        begin = to > begin ? to : begin;
      }
    });
  }

  // -- out[r] = sum of the outer products of x[e] and y[e] ---------------------------------------

  void write_sums(const compute_t* sums, int64_t segment) const {
    auto* to = static_cast<scalar_t*>(args.out) + segment * width * args.out_width;
    for (int64_t row = 0; row < width; ++row) {
      convert(to + row * args.out_width, sums + row * panels.padded(), args.out_width);
    }
  }
  compute_t* partial(int64_t slot) const {
    return reinterpret_cast<compute_t*>(args.workspace.partial) + slot * width * args.out_width;
  }

  void sum_part(const RowPart& part, int thread) const {
    compute_t* sums = stage(thread);  // [width, padded]
    compute_t* left = sums + width * panels.padded();
    compute_t* right = left + kMatmulBlockRows * width;
    std::memset(sums, 0, width * panels.padded() * sizeof(compute_t));
    for (int64_t begin = part.begin; begin < part.end; begin += kMatmulBlockRows) {
      const int64_t rest = part.end - begin;
      add_block(begin, rest < kMatmulBlockRows ? rest : kMatmulBlockRows, sums, left, right);
    }
    if (part.slot < 0) return write_sums(sums, part.row);
    for (int64_t row = 0; row < width; ++row) {
      std::memcpy(partial(part.slot) + row * args.out_width, sums + row * panels.padded(),
                  args.out_width * sizeof(compute_t));
    }
  }

  void add_block(int64_t begin, int64_t rows, compute_t* sums, compute_t* left_copy,
                 compute_t* right_copy) const {
    const compute_t* left = left_copy;
    const compute_t* right = right_copy;
    int64_t left_step = width;
    int64_t right_step = panels.padded();
    bool copies_left = true, copies_right = true;
    if constexpr (kWide) {
      if (!args.csr.indices) {
        left = x + begin * args.x_stride;
        left_step = args.x_stride;
        copies_left = false;
        if (args.out_width % W == 0) {
          right = y + begin * args.y_stride;
          right_step = args.y_stride;
          copies_right = false;
        }
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = row_of(begin + i);
      if (copies_left) convert(left_copy + i * width, x + row * args.x_stride, width);
      if (copies_right) {
        compute_t* to = right_copy + i * panels.padded();
        if (args.out_width % W) store(to + panels.padded() - W, V{});
        convert(to, y + row * args.y_stride, args.out_width);
      }
    }
    const int64_t padded = panels.padded();
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int64_t column = panel * Panels<compute_t>::kColumns;
      for_each_tile(width, panels.vectors(panel), [=]<int kRows, int kVectors>(int64_t first) {
        const compute_t* elements[kRows];
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) elements[r] = left + first + r;
        V acc[kRows][kVectors] = {};
        multiply_tile<kRows, kVectors, compute_t>(acc, elements, left_step, right + column,
                                                  right_step, rows);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            compute_t* to = sums + (first + r) * padded + column + v * W;
            store(to, load(to) + acc[r][v]);
          }
        }
      });
    }
  }

  void sum() const {
    const int threads = args.workspace.threads;
    for_each_row_part(
        args.csr, threads, [](const PlanItem&, int thread) { return thread; },
        [&](int thread, const RowPart& part) { sum_part(part, thread); });
    const int64_t size = width * args.out_width;
    for_each_long_row(args.csr, threads, [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
      compute_t* total = partial(slot_begin);
      for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
        const compute_t* next = partial(slot);
        for (int64_t i = 0; i < size; ++i) total[i] += next[i];
      }
      convert(static_cast<scalar_t*>(args.out) + row * size, total, size);
    });
  }
};

}  // namespace

void segment_matmul(const SegmentMatmulArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    const SegmentMatmul<scalar_t> matmul{args};
    args.y ? matmul.sum() : matmul.multiply();
  });
}

}  // namespace gnnkern::GNNKERN_ISA
