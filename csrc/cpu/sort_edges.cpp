#include "sort_edges.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "parallel.h"

namespace gnnkern {

namespace {

// An edge list as the caller gave it.
template <typename index_t>
struct EdgeList {
  const index_t* rows;
  int64_t row_stride;
  // Null when only the order is wanted.
  const index_t* cols;
  int64_t col_stride;

  int64_t row(int64_t edge) const { return rows[edge * row_stride]; }

  template <class Visit>
  void visit(int64_t begin, int64_t end, const Visit& visit) const {
    for (int64_t edge = begin; edge < end; ++edge) {
      visit(row(edge), cols ? static_cast<int64_t>(cols[edge * col_stride]) : 0, edge);
    }
  }
};

// A CSR matrix read as an edge list whose rows and columns have changed places.
template <typename index_t>
struct TransposedCsr {
  const index_t* indptr;
  const index_t* indices;
  const index_t* edge_id;
  int64_t num_rows;

  int64_t row(int64_t edge) const { return indices[edge]; }

  template <class Visit>
  void visit(int64_t begin, int64_t end, const Visit& visit) const {
    int64_t col =
        std::upper_bound(indptr, indptr + num_rows + 1, static_cast<index_t>(begin)) - indptr - 1;
    for (int64_t edge = begin; edge < end; ++edge) {
      while (indptr[col + 1] <= edge) ++col;
      visit(indices[edge], col, edge_id ? static_cast<int64_t>(edge_id[edge]) : edge);
    }
  }
};

// How many threads a sort is worth: each one owns a histogram of num_rows counters.
int sort_threads(int requested, int64_t num_edges, int64_t num_rows) {
  const int64_t by_work = num_edges / 65536 + 1;
  const int64_t by_memory = 4 * num_edges / std::max<int64_t>(num_rows, 1) + 1;
  return static_cast<int>(
      std::min({static_cast<int64_t>(usable_threads(requested)), by_work, by_memory}));
}

// Counts per (thread, row), turned in place into the position of the next edge of that row.
template <typename count_t>
class Histogram {
 public:
  Histogram(int threads, int64_t num_rows)
      : threads_(threads), num_rows_(num_rows), counts_(new count_t[threads * num_rows]()) {}

  count_t* of(int thread) { return counts_.get() + thread * num_rows_; }

  template <typename index_t>
  void scan_into(index_t* indptr) {
    count_t position = 0;
    for (int64_t row = 0; row < num_rows_; ++row) {
      indptr[row] = static_cast<index_t>(position);
      for (int thread = 0; thread < threads_; ++thread) {
        const count_t count = of(thread)[row];
        of(thread)[row] = position;
        position += count;
      }
    }
    indptr[num_rows_] = static_cast<index_t>(position);
  }

 private:
  int threads_;
  int64_t num_rows_;
  std::unique_ptr<count_t[]> counts_;
};

template <typename count_t, typename index_t, class Source>
void sort_into(const Source& source, int64_t num_edges, int64_t num_rows, int threads,
               index_t* indptr, index_t* indices, index_t* edge_id) {
  Histogram<count_t> histogram(threads, num_rows);
  const auto block = [&](int64_t thread) { return num_edges * thread / threads; };
  parallel_tasks(threads, threads, [&](int64_t part, int) {
    count_t* counts = histogram.of(static_cast<int>(part));
    for (int64_t edge = block(part); edge < block(part + 1); ++edge) ++counts[source.row(edge)];
  });
  histogram.scan_into(indptr);
  parallel_tasks(threads, threads, [&](int64_t part, int) {
    count_t* next = histogram.of(static_cast<int>(part));
    source.visit(block(part), block(part + 1), [&](int64_t row, int64_t col, int64_t id) {
      const count_t position = next[row]++;
      if (indices) indices[position] = static_cast<index_t>(col);
      edge_id[position] = static_cast<index_t>(id);
    });
  });
}

template <typename index_t, class Source>
void sort_any_size(const Source& source, int64_t num_edges, int64_t num_rows, int requested,
                   index_t* indptr, index_t* indices, index_t* edge_id) {
  const int threads = sort_threads(requested, num_edges, num_rows);
  if (num_edges < std::numeric_limits<uint32_t>::max()) {
    sort_into<uint32_t>(source, num_edges, num_rows, threads, indptr, indices, edge_id);
  } else {
    sort_into<uint64_t>(source, num_edges, num_rows, threads, indptr, indices, edge_id);
  }
}

// What one reading of the edge list says about it.
struct Inspection {
  int64_t bad_edge = -1;
  bool sorted = true;
};

template <typename index_t>
Inspection inspect(const EdgeList<index_t>& edges, const SortEdgesArgs& args) {
  const int threads = sort_threads(args.threads, args.num_edges, 1);
  std::vector<Inspection> found(threads);
  parallel_tasks(threads, threads, [&](int64_t part, int) {
    const int64_t begin = args.num_edges * part / threads;
    const int64_t end = args.num_edges * (part + 1) / threads;
    Inspection seen;
    int64_t previous = begin > 0 ? edges.row(begin - 1) : 0;
    for (int64_t edge = begin; edge < end; ++edge) {
      const int64_t row = edges.row(edge);
      const int64_t col = edges.cols ? edges.cols[edge * edges.col_stride] : 0;
      if (row < 0 || row >= args.num_rows || (edges.cols && (col < 0 || col >= args.num_cols))) {
        seen.bad_edge = edge;
        break;
      }
      seen.sorted &= previous <= row;
      previous = row;
    }
    found[part] = seen;
  });
  Inspection all;
  for (const Inspection& seen : found) {
    if (all.bad_edge < 0) all.bad_edge = seen.bad_edge;
    all.sorted &= seen.sorted;
  }
  return all;
}

template <typename input_t, typename output_t>
SortEdgesResult sort_typed(const SortEdgesArgs& args) {
  const EdgeList<input_t> edges{static_cast<const input_t*>(args.rows), args.row_stride,
                                static_cast<const input_t*>(args.cols), args.col_stride};
  const Inspection seen = inspect(edges, args);
  if (seen.bad_edge >= 0) return {seen.bad_edge, false};
  auto* indptr = static_cast<output_t*>(args.indptr);
  auto* indices = static_cast<output_t*>(args.indices);
  auto* edge_id = static_cast<output_t*>(args.edge_id);
  sort_any_size(edges, args.num_edges, args.num_rows, args.threads, indptr, indices, edge_id);
  return {-1, seen.sorted};
}

}  // namespace

SortEdgesResult sort_edges(const SortEdgesArgs& args) {
  SortEdgesResult result{-1, true};
  dispatch_index(args.input_type, [&]<typename input_t>() {
    dispatch_index(args.output_type,
                   [&]<typename output_t>() { result = sort_typed<input_t, output_t>(args); });
  });
  return result;
}

void reverse_csr(const ReverseArgs& args) {
  dispatch_index(args.index_type, [&]<typename index_t>() {
    const TransposedCsr<index_t> source{static_cast<const index_t*>(args.indptr),
                                        static_cast<const index_t*>(args.indices),
                                        static_cast<const index_t*>(args.edge_id), args.num_rows};
    sort_any_size(source, args.num_edges, args.num_cols, args.threads,
                  static_cast<index_t*>(args.rev_indptr), static_cast<index_t*>(args.rev_indices),
                  static_cast<index_t*>(args.rev_edge_id));
  });
}

}  // namespace gnnkern
