// out[r] = the standard deviation of the rows that row r names.

#include "reduce_rows.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
struct DeviationWriter {
  using compute_t = compute_of<scalar_t>;
  using Moments = MomentsReducer<compute_t>;
  const ScatterStdArgs& args;
  const Moments& moments;
  Columns<compute_t> columns;

  void write(int64_t row, int64_t column, vec<compute_t> deviation, vec<compute_t> mean,
             vec<compute_t> mean_rest, vec<compute_t> slope, int lanes) const {
    store_lanes(static_cast<scalar_t*>(args.out) + row * args.width + column, deviation, lanes);
    if (!args.statistics) return;
    auto* to = static_cast<compute_t*>(args.statistics) + 3 * row * args.width + column;
    store_lanes(to, mean, lanes);
    store_lanes(to + args.width, mean_rest, lanes);
    store_lanes(to + 2 * args.width, slope, lanes);
  }
  void finish(int64_t row, int64_t degree, int64_t vector, const typename Moments::State& state,
              int lanes) const {
    const auto divisor = static_cast<compute_t>(args.unbiased && degree > 1 ? degree - 1 : degree);
    const vec<compute_t> deviation = square_root<compute_t>(state.squares / divisor);
    const vec<compute_t> mean = state.sum / state.count;
    // A deviation of 0 is at its least: the gradient is 0.
    const vec<compute_t> slope =
        deviation == vec<compute_t>{} ? vec<compute_t>{} : 1 / (deviation * divisor);
    write(row, columns.start(vector), deviation, mean, moments.mean_less(state, mean), slope,
          lanes);
  }
  void finish_empty(int64_t row) const {
    const vec<compute_t> nothing{};
    for (int64_t vector = 0; vector < columns.count(); ++vector) {
      write(row, columns.start(vector), nothing, nothing, nothing, nothing, columns.lanes());
    }
  }
};

template <typename scalar_t>
void scatter_std_typed(const ScatterStdArgs& args) {
  using compute_t = compute_of<scalar_t>;
  const Columns<compute_t> columns{args.width};
  const MomentsReducer<compute_t> moments;
  const DeviationWriter<scalar_t> writer{args, moments, columns};
  const bool far = is_far(args.csr.num_cols, args.width * sizeof(scalar_t));
  const auto make_rows = [&](const row_t* numbers) {
    return GatheredRows<scalar_t>{static_cast<const scalar_t*>(args.x), args.x_stride, numbers,
                                  far};
  };
  reduce_rows_of(
      args.csr, args.workspace, columns, moments, writer, make_rows,
      [](const PlanItem&, int, compute_t*) {},
      [](const compute_t*, int64_t) { return NoWeight{}; });
}

}  // namespace

void scatter_std(const ScatterStdArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() { scatter_std_typed<scalar_t>(args); });
}

}  // namespace gnnkern::GNNKERN_ISA
