// Rows reduced item by item, with the weights staged by whoever calls.
#pragma once

#include "items.h"
#include "rows.h"
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

// States of the parts of long rows: per slot, for each vector of a state, `width` elements.
template <class Reducer>
struct PartialStates {
  using compute_t = typename Reducer::scalar;
  using State = typename Reducer::State;
  static constexpr int kVectors = sizeof(State) / sizeof(vec<compute_t>);

  char* memory;
  int64_t width;

  compute_t* at(int64_t slot, int vector) const {
    return reinterpret_cast<compute_t*>(memory) + (slot * kVectors + vector) * width;
  }
  GNNKERN_NOINLINE void save(int64_t slot, int64_t column, State state, int lanes) const {
    for (int v = 0; v < kVectors; ++v) {
      vec<compute_t> value;
      std::memcpy(&value, reinterpret_cast<const char*>(&state) + v * sizeof(value), sizeof(value));
      store_lanes(at(slot, v) + column, value, lanes);
    }
  }
  State saved(int64_t slot, int64_t column, int lanes) const {
    State state;
    for (int v = 0; v < kVectors; ++v) {
      const vec<compute_t> value = load_first(at(slot, v) + column, lanes);
      std::memcpy(reinterpret_cast<char*>(&state) + v * sizeof(value), &value, sizeof(value));
    }
    return state;
  }
};

// Positions of winners in the narrowest unsigned type that holds every degree.
template <typename compute_t>
static inline void store_positions(void* argument, int argument_bytes, int64_t offset,
                                   vec_mask<compute_t> positions, int lanes) {
  typedef int32_t int32_lanes __attribute__((vector_size(kLanes<compute_t> * 4)));
  typedef uint16_t uint16_lanes __attribute__((vector_size(kLanes<compute_t> * 2)));
  typedef uint8_t uint8_lanes __attribute__((vector_size(kLanes<compute_t>)));
  char* to = static_cast<char*>(argument) + offset * argument_bytes;
  const auto write = [&](const auto narrowed) {
    if (lanes == kLanes<compute_t>) {
      std::memcpy(to, &narrowed, sizeof(narrowed));
    } else {
      std::memcpy(to, &narrowed, static_cast<size_t>(lanes) * argument_bytes);
    }
  };
  if (argument_bytes == 1) {
    write(__builtin_convertvector(positions, uint8_lanes));
  } else if (argument_bytes == 2) {
    write(__builtin_convertvector(positions, uint16_lanes));
  } else {
    write(__builtin_convertvector(positions, int32_lanes));
  }
}

template <class Reducer>
inline constexpr bool kSumsExponentials =
    std::is_same_v<Reducer, LogSumExpReducer<typename Reducer::scalar>>;

// Where finished vectors go.
template <typename scalar_t, class Reducer>
struct RowWriter {
  using compute_t = compute_of<scalar_t>;
  const RowReduceArgs& args;
  const Reducer& reducer;
  Columns<compute_t> columns;
  // Whether more than the result is asked for.
  bool more = args.wide_out || args.argument || args.statistics;
  int64_t stride = args.out_stride ? args.out_stride : args.width;

  scalar_t* out(int64_t row) const { return static_cast<scalar_t*>(args.out) + row * stride; }
  compute_t* wide_out(int64_t row) const {
    return static_cast<compute_t*>(args.wide_out) + row * args.width;
  }

  void finish(int64_t row, int64_t degree, int64_t vector, const typename Reducer::State& state,
              int lanes) const {
    vec<compute_t> value = reducer.value(state);
    if (args.reduce == Reduce::kMean) value /= static_cast<compute_t>(degree);
    if (lanes < kLanes<compute_t> || more) {
      return finish_all(row, columns.start(vector), value, state, lanes);
    }
    store(out(row) + columns.start(vector), value);
  }

  // Compiled once, and not in every tile's loop. The state is a copy, so that the loop's own may
  // stay in registers.
  GNNKERN_NOINLINE void finish_all(int64_t row, int64_t column, vec<compute_t> value,
                                   typename Reducer::State state, int lanes) const {
    store_lanes(out(row) + column, value, lanes);
    if (args.wide_out) store_lanes(wide_out(row) + column, value, lanes);
    if constexpr (Reducer::kSelects) {
      if (args.argument) {
        store_positions<compute_t>(args.argument, args.argument_bytes, row * stride + column,
                                   state.position, lanes);
      }
    }
    if constexpr (kSumsExponentials<Reducer>) {
      // Where all are minus infinity their distance to the shift is too, and no difference is NaN.
      const auto shift =
          state.value == broadcast(kMinusInfinity<compute_t>) ? vec<compute_t>{} : state.value;
      store_statistics(row, column, shift, 1 / state.sum, lanes);
    }
  }

  void store_statistics(int64_t row, int64_t column, vec<compute_t> shift, vec<compute_t> slope,
                        int lanes) const {
    if (!args.statistics) return;
    auto* to = static_cast<compute_t*>(args.statistics) + 2 * row * args.width + column;
    store_lanes(to, shift, lanes);
    store_lanes(to + args.width, slope, lanes);
  }

  compute_t empty_value() const {
    if (args.reduce == Reduce::kLogSumExp) return kMinusInfinity<compute_t>;
    return args.reduce == Reduce::kMul ? 1 : 0;
  }

  void finish_empty(int64_t row) const {
    const auto nothing = broadcast(empty_value());
    for (int64_t vector = 0; vector < columns.count(); ++vector) {
      const int lanes = columns.lanes();
      store_lanes(out(row) + columns.start(vector), nothing, lanes);
      if (args.wide_out) store_lanes(wide_out(row) + columns.start(vector), nothing, lanes);
      if (Reducer::kSelects && args.argument) {
        store_positions<compute_t>(args.argument, args.argument_bytes,
                                   row * stride + columns.start(vector),
                                   broadcast_int<compute_t>(-1), lanes);
      }
      if constexpr (kSumsExponentials<Reducer>) {
        store_statistics(row, columns.start(vector), vec<compute_t>{}, vec<compute_t>{}, lanes);
      }
    }
  }
};

// Reduces every row of a matrix: writer.finish(row, degree, vector, state, lanes) for each vector
// of a row, writer.finish_empty(row) where there is no edge.
//
// make_rows(numbers) returns the rows that edges gather; stage_weight(item, thread, memory) writes
// the weights of an item's edges [edges, heads]; make_weight turns them into a weight policy.
template <class Reducer, class Writer, class MakeRows, class StageWeight, class MakeWeight>
static inline void reduce_rows_of(const Csr& csr, const Workspace& workspace,
                                  const Columns<typename Reducer::scalar>& columns,
                                  const Reducer& reducer, const Writer& writer,
                                  const MakeRows& make_rows, const StageWeight& stage_weight,
                                  const MakeWeight& make_weight) {
  using compute_t = typename Reducer::scalar;
  using Rows = std::invoke_result_t<MakeRows, const row_t*>;
  using Weight = std::invoke_result_t<MakeWeight, const compute_t*, int64_t>;
  const PartialStates<Reducer> partial{workspace.partial, columns.width};

  struct Context {
    RowNumbers numbers;
    Rows rows;
    Weight weights;
    Context(const MakeRows& make_rows, const MakeWeight& make_weight, const Csr& csr,
            const PlanItem& item, const compute_t* staged)
        : numbers(csr, item),
          rows(make_rows(numbers.data())),
          weights(make_weight(staged, item.edge_begin)) {}
  };
  const auto enter = [&](const PlanItem& item, int thread) {
    auto* staged = reinterpret_cast<compute_t*>(workspace.stage + thread * workspace.stage_bytes);
    stage_weight(item, thread, staged);
    return Context(make_rows, make_weight, csr, item, staged);
  };
  const auto visit = [&](const auto& context, const RowPart& part) {
    if (part.begin == part.end) return writer.finish_empty(part.row);
    const int64_t first_edge = part.slot < 0 ? part.begin : row_begin(csr, part.row);
    // Copies, which the compiler may keep in registers while results are written.
    const auto rows = context.rows.seen_from(part.row);
    const auto weights = context.weights;
    reduce_row(reducer, rows, weights, columns, part.begin, part.end, first_edge, part.item_end,
               [&](int64_t vector, const auto& state, int lanes) {
                 if (part.slot < 0) {
                   writer.finish(part.row, part.end - part.begin, vector, state, lanes);
                 } else {
                   partial.save(part.slot, columns.start(vector), state, lanes);
                 }
               });
  };
  const auto visit_parts = [&](const auto& context, const PlanItem& item) {
    for_each_part_of(csr, item, [&](const RowPart& part) { visit(context, part); });
  };
  // Chosen once per call: rows that fill tiles need no loop over what is left of them.
  const auto visit_items = [&]<int kTile>() {
    for_each_item(csr, workspace.threads, enter, [&](const auto& context, const PlanItem& item) {
      if (item.slot >= 0) return visit_parts(context, item);
      reduce_short_rows<kTile>(
          csr, item, reducer, context.rows, context.weights, columns,
          [&](int64_t row, int64_t degree, int64_t vector, const auto& state) {
            writer.finish(row, degree, vector, state, kLanes<compute_t>);
          },
          [&](const RowPart& part) { visit(context, part); });
    });
  };
  const bool full = columns.width % kLanes<compute_t> == 0;
  const auto visit_tiles = [&]<int... kTiles>() {
    const auto visited = [&]<int kTile>() {
      if constexpr (kReducesShort<Reducer, Weight, Rows, kTile>) {
        if (!full || !fills_tiles<kTile>(columns.count())) return false;
        visit_items.template operator()<kTile>();
        return true;
      }
      return false;
    };
    return (visited.template operator()<kTiles>() || ...);
  };
  if (!visit_tiles.template operator()<8, 4, 2, 1>()) {
    for_each_item(csr, workspace.threads, enter, visit_parts);
  }
  for_each_long_row(csr, workspace.threads, [&](int64_t row, int64_t slot_begin, int64_t slot_end) {
    const int64_t degree = row_begin(csr, row + 1) - row_begin(csr, row);
    for (int64_t vector = 0; vector < columns.count(); ++vector) {
      const int64_t column = columns.start(vector);
      auto state = partial.saved(slot_begin, column, columns.lanes());
      for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
        reducer.merge(state, partial.saved(slot, column, columns.lanes()));
      }
      writer.finish(row, degree, vector, state, columns.lanes());
    }
  });
}

// One reduction of rows of x into one result.
template <typename scalar_t, class Reducer, class StageWeight, class MakeWeight>
static inline void reduce_rows(const RowReduceArgs& args, const Reducer& reducer,
                               const StageWeight& stage_weight, const MakeWeight& make_weight) {
  const Columns<compute_of<scalar_t>> columns{args.width};
  const RowWriter<scalar_t, Reducer> writer{args, reducer, columns};
  const bool far = is_far(args.csr.num_cols, args.width * sizeof(scalar_t));
  const auto make_rows = [&](const row_t* numbers) {
    return GatheredRows<scalar_t>{static_cast<const scalar_t*>(args.x), args.x_stride, numbers,
                                  far};
  };
  reduce_rows_of(args.csr, args.workspace, columns, reducer, writer, make_rows, stage_weight,
                 make_weight);
}

}  // namespace gnnkern::GNNKERN_ISA
