// Several reductions over the edges of a row from one gather of x, and the gradients of those that
// are smooth.

#include "reduce_rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename compute_t>
using Moments = MomentsReducer<compute_t>;
// The largest and the smallest.
template <typename compute_t>
using Selections = PairReducer<SelectReducer<compute_t, true>, SelectReducer<compute_t, true>, 4>;
template <typename compute_t>
using MomentsAndSelections = PairReducer<Moments<compute_t>, Selections<compute_t>, 2>;

// -- forward -----------------------------------------------------------------------------------

// Where finished vectors go: to the rows of the result that ask for them.
template <typename scalar_t, class Reducer>
struct MultiWriter {
  using compute_t = compute_of<scalar_t>;
  const MultiReduceArgs& args;
  const Reducer& reducer;
  Columns<compute_t> columns;

  void put(int64_t row, int place, int64_t column, vec<compute_t> value, int lanes) const {
    if (place < 0) return;
    auto* out = static_cast<scalar_t*>(args.out);
    store_lanes(out + (row * args.places.count + place) * args.width + column, value, lanes);
  }
  void keep(void* to, int64_t offset, vec<compute_t> value, int lanes) const {
    if (to) store_lanes(static_cast<compute_t*>(to) + offset, value, lanes);
  }
  void keep_positions(void* to, int64_t offset, vec_mask<compute_t> positions, int lanes) const {
    if (to) store_positions<compute_t>(to, args.argument_bytes, offset, positions, lanes);
  }

  GNNKERN_NOINLINE void finish(int64_t row, int64_t, int64_t vector, typename Reducer::State state,
                               int lanes) const {
    write(row, columns.start(vector), reducer, state, lanes);
  }
  void write(int64_t row, int64_t column, const Moments<compute_t>& moments,
             const typename Moments<compute_t>::State& state, int lanes) const {
    const int64_t offset = row * args.width + column;
    const vec<compute_t> mean = state.sum / state.count;
    const vec<compute_t> variance = moments.variance(state);
    const vec<compute_t> deviation = square_root<compute_t>(variance);
    put(row, args.places.sum, column, state.sum, lanes);
    put(row, args.places.mean, column, mean, lanes);
    put(row, args.places.var, column, variance, lanes);
    put(row, args.places.std, column, deviation, lanes);
    keep(args.mean, offset, mean, lanes);
    keep(args.mean_rest, offset, moments.mean_less(state, mean), lanes);
    keep(args.std, offset, deviation, lanes);
  }
  void write(int64_t row, int64_t column, const Selections<compute_t>& selections,
             const typename Selections<compute_t>::State& state, int lanes) const {
    const int64_t offset = row * args.width + column;
    put(row, args.places.max, column, selections.a.value(state.a), lanes);
    put(row, args.places.min, column, selections.b.value(state.b), lanes);
    keep_positions(args.argument_max, offset, state.a.position, lanes);
    keep_positions(args.argument_min, offset, state.b.position, lanes);
  }
  void write(int64_t row, int64_t column, const MomentsAndSelections<compute_t>& both,
             const typename MomentsAndSelections<compute_t>::State& state, int lanes) const {
    write(row, column, both.a, state.a, lanes);
    write(row, column, both.b, state.b, lanes);
  }

  void finish_empty(int64_t row) const {
    const vec<compute_t> nothing{};
    for (int64_t vector = 0; vector < columns.count(); ++vector) {
      const int64_t column = columns.start(vector);
      const int64_t offset = row * args.width + column;
      for (int place = 0; place < args.places.count; ++place) {
        put(row, place, column, nothing, columns.lanes());
      }
      for (void* kept : {args.mean, args.mean_rest, args.std}) {
        keep(kept, offset, nothing, columns.lanes());
      }
      for (void* argument : {args.argument_max, args.argument_min}) {
        keep_positions(argument, offset, broadcast_int<compute_t>(-1), columns.lanes());
      }
    }
  }
};

template <typename scalar_t>
void multi_reduce_typed(const MultiReduceArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const Columns<compute_t> columns{args.width};
  const bool far = is_far(args.csr.num_cols, args.width * sizeof(scalar_t));
  const auto make_rows = [&](const row_t* numbers) {
    return GatheredRows<scalar_t>{static_cast<const scalar_t*>(args.x), args.x_stride, numbers,
                                  far};
  };
  const auto run = [&]<class Reducer>(const Reducer& reducer) {
    const MultiWriter<scalar_t, Reducer> writer{args, reducer, columns};
    reduce_rows_of(
        args.csr, args.workspace, columns, reducer, writer, make_rows,
        [](const PlanItem&, int, compute_t*) {},
        [](const compute_t*, int64_t) { return NoWeight{}; });
  };
  const ReducePlaces& places = args.places;
  const Selections<compute_t> selections{SelectReducer<compute_t, true>(false),
                                         SelectReducer<compute_t, true>(true)};
  if (places.max < 0 && places.min < 0) return run(Moments<compute_t>{});
  if (places.sum < 0 && places.mean < 0 && places.var < 0 && places.std < 0) {
    return run(selections);
  }
  run(MomentsAndSelections<compute_t>{{}, selections});
}

// -- gradients of sum, mean, var and std -------------------------------------------------------

constexpr int64_t kPackRows = 1024;

// With n messages into row v, one of them, m, receives level[v] + slope[v] * (m - mean[v]), where
// level = grad_sum + grad_mean / n and slope = 2 grad_var / n + grad_std / (n std).
template <typename scalar_t, typename index_t>
void pack_typed(const MultiReducePackArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const Columns<compute_t> columns{args.width};
  const ReducePlaces& places = args.places;
  const bool spreads = places.var >= 0 || places.std >= 0;
  const auto* indptr = static_cast<const index_t*>(args.indptr);
  const auto* grad = static_cast<const scalar_t*>(args.grad);
  const auto read = [&](const auto* from) {
    return columns.narrow() ? load_first(from, columns.lanes()) : load(from);
  };
  const auto pack_row = [&](int64_t row) {
    const auto count = static_cast<compute_t>(indptr[row + 1] - indptr[row]);
    if (count == 0) return;
    auto* packed = static_cast<compute_t*>(args.packed) + row * (spreads ? 3 : 1) * args.width;
    for (int64_t vector = 0; vector < columns.count(); ++vector) {
      const int64_t column = columns.start(vector);
      const auto grad_of = [&](int place) {
        if (place < 0) return vec<compute_t>{};
        return read(grad + (row * places.count + place) * args.width + column);
      };
      const auto kept = [&](const void* values, int64_t stride) {
        return read(static_cast<const compute_t*>(values) + row * stride + column);
      };
      vec<compute_t> level = grad_of(places.sum) + grad_of(places.mean) / count;
      if (spreads) {
        vec<compute_t> slope = 2 * grad_of(places.var) / count;
        if (places.std >= 0) {
          const vec<compute_t> deviation = kept(args.std, args.std_stride);
          const vec<compute_t> by_std = grad_of(places.std) / (count * deviation);
          slope += deviation == 0 ? vec<compute_t>{} : by_std;
        }
        // The mean was rounded: what it lacks goes into the level.
        level -= slope * kept(args.mean_rest, args.width);
        store_lanes(packed + args.width + column, slope, columns.lanes());
        store_lanes(packed + 2 * args.width + column, kept(args.mean, args.mean_stride),
                    columns.lanes());
      }
      store_lanes(packed + column, level, columns.lanes());
    }
  };
  const int64_t num_tasks = (args.num_rows + kPackRows - 1) / kPackRows;
  parallel_tasks(num_tasks, args.threads, [&](int64_t task, int) {
    const int64_t begin = task * kPackRows;
    const int64_t end = begin + kPackRows < args.num_rows ? begin + kPackRows : args.num_rows;
    for (int64_t row = begin; row < end; ++row) pack_row(row);
  });
}

// The packed rows of destinations, as the message to a source of features `own`.
template <typename scalar_t>
struct SpreadRows {
  static constexpr int kMostTile = 4;
  using scalar = scalar_t;
  using compute_t = compute_of<scalar_t>;
  const compute_t* x;  // [num_dst, 3, width]: level, slope, mean
  int64_t width;
  const row_t* numbers;
  bool far;
  const scalar_t* features;
  int64_t features_stride;
  const scalar_t* own;

  const compute_t* at(int64_t edge) const {
    return x + static_cast<int64_t>(numbers[edge]) * 3 * width;
  }
  void fetch(int64_t edge, int64_t column, int64_t bytes) const {
    if (!far) return;
    for (int part = 0; part < 3; ++part) {
      const char* from = reinterpret_cast<const char*>(at(edge) + part * width + column);
      for (int64_t offset = 0; offset < bytes; offset += 64) prefetch_line(from + offset);
    }
  }
  template <int kBytes>
  void fetch(int64_t edge, int64_t column) const {
    fetch(edge, column, kBytes);
  }
  template <bool kNarrow>
  vec<compute_t> message(int64_t edge, int64_t column, int lanes) const {
    const auto read = [&](const auto* from) {
      if constexpr (kNarrow) {
        return load_first(from, lanes);
      } else {
        return load(from);
      }
    };
    const compute_t* from = at(edge) + column;
    return read(from) + read(from + width) * (read(own + column) - read(from + 2 * width));
  }
  SpreadRows seen_from(int64_t row) const {
    SpreadRows rows = *this;
    rows.own = features + row * features_stride;
    return rows;
  }
};

template <typename scalar_t>
void backward_typed(const MultiReduceBackwardArgs& args) {
  using compute_t = compute_of<scalar_t>;
  RowReduceArgs sum{};
  sum.csr = args.csr;
  sum.width = args.width;
  sum.reduce = Reduce::kSum;
  sum.out = args.grad_x;
  const Columns<compute_t> columns{args.width};
  const SumReducer<compute_t> reducer;
  const RowWriter<compute_t, SumReducer<compute_t>> writer{sum, reducer, columns};
  const bool far = is_far(args.csr.num_cols, 3 * args.width * sizeof(compute_t));
  const auto make_rows = [&](const row_t* numbers) {
    const auto* x = static_cast<const scalar_t*>(args.x);
    return SpreadRows<scalar_t>{
        static_cast<const compute_t*>(args.packed), args.width, numbers, far, x, args.x_stride, x};
  };
  reduce_rows_of(
      args.csr, args.workspace, columns, reducer, writer, make_rows,
      [](const PlanItem&, int, compute_t*) {},
      [](const compute_t*, int64_t) { return NoWeight{}; });
}

}  // namespace

void multi_reduce(const MultiReduceArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { multi_reduce_typed<scalar_t>(args); });
}

void multi_reduce_pack(const MultiReducePackArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    dispatch_index(args.index_type,
                   [&]<typename index_t>() { pack_typed<scalar_t, index_t>(args); });
  });
}

void multi_reduce_backward(const MultiReduceBackwardArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { backward_typed<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
