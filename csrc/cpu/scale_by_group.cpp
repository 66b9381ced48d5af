// out[e] = f(x[e] - shift[g]) * scale[g] for every row e and its group g, f the identity or exp:
// the gradient of a standard deviation and that of a log-sum-exp.

#include "kernels.h"
#include "parallel.h"
#include "rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

// Rows handed to a thread at once.
constexpr int64_t kBlockRows = 512;
// Elements of narrow rows brought side by side, to fill vectors.
constexpr int64_t kFlatElements = 512;

// The group of each row in turn: named by an index, or by the boundaries that the row lies between.
template <typename index_t>
struct Groups {
  const index_t* group;
  bool by_boundaries;
  int64_t current;

  Groups(const ScaleByGroupArgs& args, int64_t first_row)
      : group(static_cast<const index_t*>(args.group)),
        by_boundaries(args.by_boundaries),
        current(0) {
    if (!by_boundaries) return;
    int64_t past = args.num_groups;
    while (past - current > 1) {
      const int64_t middle = current + (past - current) / 2;
      (group[middle] <= first_row ? current : past) = middle;
    }
  }
  int64_t of(int64_t row) {
    if (!by_boundaries) return group[row];
    while (group[current + 1] <= row) ++current;
    return current;
  }
};

template <typename scalar_t, typename index_t, bool kExponential>
struct ScaleByGroup {
  using compute_t = compute_of<scalar_t>;
  static constexpr int kWide = kLanes<compute_t>;
  const ScaleByGroupArgs& args;
  const scalar_t* x = static_cast<const scalar_t*>(args.x);
  // A group's statistics: its shift, where f is the identity what the shift lacks, and its slope.
  static constexpr int64_t kParts = kExponential ? 2 : 3;
  const compute_t* statistics = static_cast<const compute_t*>(args.statistics);
  const compute_t* scale = static_cast<const compute_t*>(args.scale);
  scalar_t* out = static_cast<scalar_t*>(args.out);
  int64_t width = args.width;

  void wide(int64_t begin, int64_t end) const {
    const Columns<compute_t> columns{width};
    const int64_t count = columns.count();
    Groups<index_t> groups(args, begin);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t own = groups.of(row);
      for (int64_t vector = 0; vector < count; ++vector) {
        const int64_t column = columns.start(vector);
        const compute_t* shift = statistics + kParts * own * width + column;
        vec<compute_t> value = load(x + row * args.x_stride + column) - load(shift);
        if constexpr (kExponential) {
          value = exp_nonpositive(value);
        } else {
          value -= load(shift + width);
        }
        store(out + row * width + column, value * load(scale + own * width + column));
      }
    }
  }

  void narrow(int64_t begin, int64_t end) const {
    compute_t values[kFlatElements], scales[kFlatElements];
    const int64_t rows = kFlatElements / kWide;
    Groups<index_t> groups(args, begin);
    for (int64_t from = begin; from < end; from += rows) {
      const int64_t to = from + rows < end ? from + rows : end;
      const int64_t count = (to - from) * width;
      if (args.x_stride == width) {
        convert(values, x + from * width, count);
      } else {
        for (int64_t row = from; row < to; ++row) {
          convert(values + (row - from) * width, x + row * args.x_stride, width);
        }
      }
      int64_t i = 0;
      for (int64_t row = from; row < to; ++row) {
        const int64_t own = groups.of(row);
        const compute_t* shift = statistics + kParts * own * width;
        for (int64_t column = 0; column < width; ++column, ++i) {
          values[i] -= shift[column];
          if constexpr (!kExponential) values[i] -= shift[width + column];
          scales[i] = scale[own * width + column];
        }
      }
      // Lanes beyond the count are computed and not stored.
      for (i = 0; i < count; i += kWide) {
        const int lanes = static_cast<int>(count - i < kWide ? count - i : kWide);
        vec<compute_t> value = load(values + i);
        if constexpr (kExponential) value = exp_nonpositive(value);
        store_lanes(out + from * width + i, value * load(scales + i), lanes);
      }
    }
  }

  void run() const {
    const int64_t blocks = (args.num_rows + kBlockRows - 1) / kBlockRows;
    parallel_tasks(blocks, args.threads, [&](int64_t block, int) {
      const int64_t begin = block * kBlockRows;
      const int64_t end = begin + kBlockRows < args.num_rows ? begin + kBlockRows : args.num_rows;
      width < kWide ? narrow(begin, end) : wide(begin, end);
    });
  }
};

}  // namespace

void scale_by_group(const ScaleByGroupArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.index_type, [&]<typename index_t>() {
      if (args.exponential) {
        ScaleByGroup<scalar_t, index_t, true>{args}.run();
      } else {
        ScaleByGroup<scalar_t, index_t, false>{args}.run();
      }
    });
  });
}

}  // namespace gnnkern::GNNKERN_ISA
