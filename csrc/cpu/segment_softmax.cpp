// Softmax over the edges of each row, per head, and its gradient.

#include "softmax.h"
#include "weights.h"

namespace gnnkern::GNNKERN_ISA {

namespace {

template <typename scalar_t>
struct SegmentSoftmax {
  using compute_t = compute_of<scalar_t>;
  const SegmentSoftmaxArgs& args;
  int64_t heads = args.heads;

  // Per thread: room for one row's statistics, then two stages of [edges, heads].
  char* memory(int thread) const {
    return args.workspace.stage + thread * args.workspace.stage_bytes;
  }
  compute_t* stage(int thread, int number) const {
    return reinterpret_cast<compute_t*>(memory(thread)) + 2 * heads + number * kChunkEdges * heads;
  }

  // values[i] = combine(values[i], others[i]).
  template <class Combine>
  static void combine_flat(compute_t* values, const compute_t* others, int64_t count,
                           const Combine& combine) {
    int64_t i = 0;
    for (; i + kLanes<compute_t> <= count; i += kLanes<compute_t>) {
      store(values + i, combine(load(values + i), load(others + i)));
    }
    if (i < count) {
      const int rest = static_cast<int>(count - i);
      store_first(values + i, combine(load_first(values + i, rest), load_first(others + i, rest)),
                  rest);
    }
  }

  // Writes staged values of an item back to the caller's order.
  void unstage(const PlanItem& item, const compute_t* staged) const {
    auto* out = static_cast<scalar_t*>(args.out);
    if (!args.csr.edge_id) {
      convert(out + item.edge_begin * heads, staged, (item.edge_end - item.edge_begin) * heads);
      return;
    }
    for_each_caller_edge(args.csr, item, [&](int64_t, int64_t to) {
      for (int64_t head = 0; head < heads; ++head) store_one(out + to * heads + head, *staged++);
    });
  }

  // Calls visit(first edge, edges, room for statistics) for the rows of an item that have edges.
  template <class Visit>
  void for_each_row_of(const PlanItem& item, int thread, const Visit& visit) const {
    const auto own = SoftmaxStatistics<compute_t>::at(memory(thread), 0, heads);
    int64_t begin = item.edge_begin;
    for (int64_t row = item.row_begin; row < item.row_end; ++row) {
      const int64_t end = row_begin(args.csr, row + 1);
      if (end > begin) visit(begin - item.edge_begin, end - begin, own);
      begin = end;
    }
  }

  // An item of whole rows goes through `whole`. Of long rows every chunk gives its statistics by
  // `take`, which `merge` joins, and is then done by `finish`.
  template <class Stage, class Whole, class Take, class Merge, class Finish>
  void run(const Stage& stage_item, const Whole& whole, const Take& take, const Merge& merge,
           const Finish& finish) const {
    using Statistics = SoftmaxStatistics<compute_t>;
    const Csr& csr = args.csr;
    const int threads = args.workspace.threads;
    if (csr.plan.header->num_slots > 0) {
      parallel_tasks(csr.plan.header->num_items, threads, [&](int64_t number, int thread) {
        const PlanItem& item = csr.plan.items[number];
        if (item.slot < 0) return;
        stage_item(item, thread);
        take(thread, 0, item.edge_end - item.edge_begin,
             Statistics::at(args.workspace.partial, item.slot, heads));
      });
      for_each_long_row(csr, threads, [&](int64_t, int64_t slot_begin, int64_t slot_end) {
        const auto all = Statistics::at(args.workspace.partial, slot_begin, heads);
        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
          merge(all, Statistics::at(args.workspace.partial, slot, heads));
        }
        for (int64_t slot = slot_begin + 1; slot < slot_end; ++slot) {
          std::memcpy(Statistics::at(args.workspace.partial, slot, heads).largest, all.largest,
                      2 * heads * sizeof(compute_t));
        }
      });
    }
    parallel_tasks(csr.plan.header->num_items, threads, [&](int64_t number, int thread) {
      const PlanItem& item = csr.plan.items[number];
      stage_item(item, thread);
      if (item.slot >= 0) {
        finish(thread, 0, item.edge_end - item.edge_begin,
               Statistics::at(args.workspace.partial, item.slot, heads));
      } else {
        whole(item, thread);
      }
      unstage(item, stage(thread, 0));
    });
  }

  void forward() const {
    const auto* score = static_cast<const scalar_t*>(args.score);
    run([&](const PlanItem& item,
            int thread) { stage_edges(args.csr, score, heads, item, stage(thread, 0)); },
        // Step by step over all rows: the exponentials fill whole vectors, and what one row waits
        // for is hidden by its neighbours.
        [&](const PlanItem& item, int thread) {
          compute_t* scores = stage(thread, 0);
          for_each_row_of(item, thread, [&](int64_t first, int64_t edges, const auto& own) {
            own.take_largest(scores + first * heads, edges, heads);
          });
          exp_flat(scores, (item.edge_end - item.edge_begin) * heads);
          for_each_row_of(item, thread, [&](int64_t first, int64_t edges, const auto& own) {
            own.divide_by_sum(scores + first * heads, edges, heads, stage(thread, 1));
          });
        },
        [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
          statistics.take(stage(thread, 0) + first * heads, edges, heads);
        },
        [&](const auto& statistics, const auto& later) { statistics.merge(later, heads); },
        [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
          statistics.finish(stage(thread, 0) + first * heads, edges, heads, stage(thread, 1));
        });
  }

  // grad_score = softmax * (grad - sum over the row of softmax * grad).
  void backward() const {
    const auto* softmax = static_cast<const scalar_t*>(args.score);
    const auto* grad = static_cast<const scalar_t*>(args.grad);
    const auto multiply = [&](int thread, int64_t first, int64_t edges) {
      compute_t* products = stage(thread, 0) + first * heads;
      const compute_t* factors = stage(thread, 1) + first * heads;
      combine_flat(products, factors, edges * heads, [](auto a, auto b) { return a * b; });
    };
    const auto fold = [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
      fold_heads(stage(thread, 0) + first * heads, edges * heads, heads, compute_t{0}, Sum{},
                 statistics.sum);
    };
    const auto take = [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
      multiply(thread, first, edges);
      fold(thread, first, edges, statistics);
    };
    const auto subtract = [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
      compute_t* products = stage(thread, 0) + first * heads;
      compute_t* factors = stage(thread, 1) + first * heads;
      change_heads(factors, edges * heads, heads, statistics.sum,
                   [](auto value, auto total) { return value * total; });
      combine_flat(products, factors, edges * heads, [](auto a, auto b) { return a - b; });
    };
    run(
        [&](const PlanItem& item, int thread) {
          stage_edges(args.csr, grad, heads, item, stage(thread, 0));
          stage_edges(args.csr, softmax, heads, item, stage(thread, 1));
        },
        [&](const PlanItem& item, int thread) {
          multiply(thread, 0, item.edge_end - item.edge_begin);
          for_each_row_of(item, thread, [&](int64_t first, int64_t edges, const auto& own) {
            fold(thread, first, edges, own);
            subtract(thread, first, edges, own);
          });
        },
        take,
        [&](const auto& statistics, const auto& later) {
          for (int64_t head = 0; head < heads; ++head) statistics.sum[head] += later.sum[head];
        },
        [&](int thread, int64_t first, int64_t edges, const auto& statistics) {
          multiply(thread, first, edges);
          subtract(thread, first, edges, statistics);
        });
  }
};

}  // namespace

void segment_softmax(const SegmentSoftmaxArgs& args) {
  dispatch_float(args.dtype, [&]<typename scalar_t>() {
    const SegmentSoftmax<scalar_t> softmax{args};
    args.grad ? softmax.backward() : softmax.forward();
  });
}

}  // namespace gnnkern::GNNKERN_ISA
