// The Python module `gnnkern._C`: pointers and sizes in, nothing out but errors.
//
// Callers (gnnkern/_native.py) have checked shapes, types and devices. What is checked here guards
// memory: that a plan belongs to its matrix and that enumerations hold known values.

#include "bindings.h"

#include <pybind11/stl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "cpu/column_blocks.h"
#include "cpu/fennel.h"
#include "cpu/parallel.h"
#include "cpu/runtime.h"
#include "cpu/sort_edges.h"

namespace gnnkern {
namespace {

int argument_size(int bytes) {
  if (bytes != 0 && bytes != 1 && bytes != 2 && bytes != 4) {
    throw py::value_error("an argument takes 1, 2 or 4 bytes, got " + std::to_string(bytes));
  }
  return bytes;
}

// (index type, indptr, indices, edge_id, plan, num_rows, num_cols, num_edges); a plan of address 0
// is made on the spot and kept here.
struct CsrArgument {
  Csr csr;
  std::unique_ptr<int64_t[]> own_plan;

  explicit CsrArgument(const py::tuple& fields) {
    if (fields.size() != 8) throw py::value_error("a CSR matrix has 8 fields");
    csr.index_type = index_type(fields[0].cast<int>());
    csr.indptr = at(fields[1].cast<Address>());
    csr.indices = at(fields[2].cast<Address>());
    csr.edge_id = at(fields[3].cast<Address>());
    const auto* plan = at<const int64_t>(fields[4].cast<Address>());
    csr.num_rows = fields[5].cast<int64_t>();
    csr.num_cols = fields[6].cast<int64_t>();
    csr.num_edges = fields[7].cast<int64_t>();
    if (csr.num_rows < 0 || csr.num_cols < 0 || csr.num_edges < 0 || !csr.indptr) {
      throw py::value_error("a CSR matrix needs indptr and sizes of at least 0");
    }
    if (!plan) {
      own_plan.reset(new int64_t[plan_length(csr.num_rows, csr.num_edges)]);
      make_plan(csr.index_type, csr.indptr, csr.num_rows, csr.num_edges, own_plan.get());
      plan = own_plan.get();
    }
    csr.plan = Plan::view(plan, csr.num_rows, csr.num_edges);
  }
};

// Work below which handing it to a second thread costs more than it saves (elements touched).
constexpr int64_t kSerialElements = 32768;

int threads_for(const Csr& csr, int64_t width, int requested) {
  const int64_t elements = (csr.num_rows + csr.num_edges) * (width + 2);
  return elements < kSerialElements ? 1 : usable_threads(requested);
}

// Cache-line aligned scratch memory, freed at the end of the call.
class Scratch {
 public:
  Workspace reserve(int64_t partial_bytes, int64_t stage_bytes, int64_t shared_bytes, int threads) {
    partial_bytes = aligned(partial_bytes);
    stage_bytes = aligned(stage_bytes);
    const int64_t total = partial_bytes + stage_bytes * threads + aligned(shared_bytes) + 64;
    memory_.reset(static_cast<char*>(std::aligned_alloc(64, total)));
    if (!memory_) throw std::bad_alloc();
    return {memory_.get(), memory_.get() + partial_bytes, stage_bytes, threads};
  }

 private:
  static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
};

// Asks for huge pages under a large output that has not been touched: on a 43 MB output the page
// faults of small ones cost half of what the sum itself does, and its reader saves TLB misses.
// Only a hint: a refusal changes nothing.
void prefer_huge_pages(Address address, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = 2 << 20;
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + bytes) / kHugePage * kHugePage;
  if (end > begin) madvise(at(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Room for the heads of every lane of a row (LaneHeads in rows.h), for the narrowest vectors.
int64_t lane_table_bytes(int64_t width) { return (width / 2 + 2) * 96; }

// The longest vector, in elements: stores may run over by as much.
constexpr int64_t kMaxLanes = 16;

void bind_row_reduce(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                     int64_t width, Address weight, int64_t heads, int reduce, Address out,
                     Address argument, int argument_bytes, Address statistics, int num_threads) {
  const CsrArgument csr(csr_fields);
  RowReduceArgs args{csr.csr,        scalar_type(dtype),
                     at(x),          x_stride,
                     width,          at(weight),
                     heads,          reduction(reduce),
                     at(out),        nullptr,
                     at(argument),   argument_size(argument_bytes),
                     at(statistics), {}};
  const int64_t size = compute_size_of(args.dtype);
  const int threads = threads_for(csr.csr, width, num_threads);
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * 2 * size,
                                   kChunkEdges * (weight ? heads * size : 0) + kMaxLanes * 8,
                                   weight ? lane_table_bytes(width) : 0, threads);
  args.blocks.columns = block_columns(args);
  Scratch packed, sorted;
  if (args.blocks.columns) {
    args.blocks.x = packed.reserve(packed_bytes(args), 0, 0, 0).partial;
    args.blocks.weight = sorted.reserve(sorted_weight_bytes(args), 0, 0, 0).partial;
    prefer_huge_pages(reinterpret_cast<Address>(args.blocks.x), packed_bytes(args));
  }
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(argument, csr.csr.num_rows * width * argument_bytes);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).row_reduce(args);
}

void bind_message_reduce(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                         int64_t width, Address edge_rows, int64_t edge_width, int op,
                         Address x_columns, Address edge_columns, int reduce, Address out,
                         Address argument, int argument_bytes, int num_threads) {
  const CsrArgument csr(csr_fields);
  RowReduceArgs args{csr.csr,      scalar_type(dtype),
                     at(x),        x_stride,
                     width,        at(edge_rows),
                     edge_width,   reduction(reduce),
                     at(out),      nullptr,
                     at(argument), argument_size(argument_bytes),
                     nullptr,      {}};
  args.op = edge_op(op);
  args.x_columns = at<const int32_t>(x_columns);
  args.weight_columns = at<const int32_t>(edge_columns);
  const int64_t size = compute_size_of(args.dtype);
  const bool staged = !args.weight_columns && edge_width != width;
  const int threads = threads_for(csr.csr, 2 * width, num_threads);
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * 2 * size,
                                   (staged ? kChunkEdges * edge_width * size : 0) + kMaxLanes * 8,
                                   staged ? lane_table_bytes(width) : 0, threads);
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(argument, csr.csr.num_rows * width * argument_bytes);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).message_reduce(args);
}

// `selections` holds pairs of addresses: gradient, argument.
// Columns of x that one thread sums at a time: a cache line of float32, so that the rows it
// scatters to stay in cache (16 columns of 170 thousand rows are 11 MB), or half of one where
// threads would be idle.
int64_t owned_columns(int64_t width, int threads) {
  return width >= 16 * threads ? 16 : std::max<int64_t>((width / threads + 7) / 8 * 8, 8);
}

void bind_select_backward(const py::tuple& csr_fields, int dtype,
                          const std::vector<std::pair<Address, Address>>& selections,
                          int64_t grad_stride, int64_t width, Address weight, int64_t heads,
                          int argument_bytes, Address grad_x, Address grad_weight, Address base,
                          Address x, int64_t x_stride, int op, Address x_columns,
                          Address weight_columns, bool wide_grad_weight, int num_threads) {
  const CsrArgument csr(csr_fields);
  std::vector<Selection> each;
  for (const auto& [grad, argument] : selections) each.push_back({at(grad), at(argument)});
  if (each.empty()) throw py::value_error("select_backward needs a selection");
  SelectBackwardArgs args{csr.csr,
                          scalar_type(dtype),
                          each.data(),
                          static_cast<int64_t>(each.size()),
                          grad_stride,
                          width,
                          at(weight),
                          heads,
                          argument_size(argument_bytes),
                          at(grad_x),
                          at(grad_weight),
                          at(base),
                          at(x),
                          x_stride,
                          false,
                          0,
                          {},
                          edge_op(op),
                          at<const int32_t>(x_columns),
                          at<const int32_t>(weight_columns),
                          wide_grad_weight};
  int threads = threads_for(csr.csr, width, num_threads);
  args.owned_columns = owned_columns(width, threads);
  // A matrix without edges has no indices either.
  args.own_rows =
      !csr.csr.indices && csr.csr.num_cols == csr.csr.num_edges && each.size() == 1 && !args.weight;
  const bool sums_beside =
      args.grad_x && !args.own_rows && (size_of(args.dtype) == 2 || args.owned_columns < width);
  const int64_t sums = csr.csr.num_cols * args.owned_columns * compute_size_of(args.dtype);
  if (sums_beside) {
    threads = static_cast<int>(
        std::min<int64_t>(threads, (width + args.owned_columns - 1) / args.owned_columns));
  }
  Scratch scratch;
  args.workspace = scratch.reserve(0, sums_beside ? sums : 64, 0, threads);
  if (sums_beside) {
    prefer_huge_pages(reinterpret_cast<Address>(args.workspace.stage), sums * threads);
  }
  prefer_huge_pages(grad_x, csr.csr.num_cols * width * size_of(args.dtype));
  prefer_huge_pages(grad_weight, csr.csr.num_edges * heads * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).select_backward(args);
}

void bind_sddmm(const py::tuple& csr_fields, int dtype, Address x_dst, Address x_src, int64_t width,
                int64_t heads, int op, Address out, int num_threads) {
  const CsrArgument csr(csr_fields);
  const SddmmArgs args{csr.csr,
                       scalar_type(dtype),
                       at(x_dst),
                       at(x_src),
                       width,
                       heads,
                       edge_op(op),
                       at(out),
                       threads_for(csr.csr, width, num_threads)};
  prefer_huge_pages(
      out, csr.csr.num_edges * (args.op == EdgeOp::kDot ? heads : width) * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).sddmm(args);
}

// Operands anywhere: at the ends 0 (destination), 1 (source) or 2 (edge).
void bind_sddmm_anywhere(const py::tuple& csr_fields, int dtype, Address lhs, int lhs_at,
                         int64_t lhs_width, Address lhs_columns, Address rhs, int rhs_at,
                         int64_t rhs_width, Address rhs_columns, int64_t width, int64_t heads,
                         int op, int64_t out_width, Address out, int num_threads) {
  const CsrArgument csr(csr_fields);
  if (out_width <= 0 || width % out_width != 0) {
    throw py::value_error("a result of " + std::to_string(out_width) + " elements cannot sum " +
                          std::to_string(width) + " columns");
  }
  SddmmArgs args{csr.csr,
                 scalar_type(dtype),
                 at(lhs),
                 at(rhs),
                 width,
                 heads,
                 edge_op(op),
                 at(out),
                 threads_for(csr.csr, width, num_threads)};
  args.lhs_at = edge_end(lhs_at);
  args.rhs_at = edge_end(rhs_at);
  args.lhs_columns = at<const int32_t>(lhs_columns);
  args.rhs_columns = at<const int32_t>(rhs_columns);
  args.lhs_width = lhs_width;
  args.rhs_width = rhs_width;
  args.out_width = out_width;
  prefer_huge_pages(out, csr.csr.num_edges * out_width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).sddmm(args);
}

void bind_segment_softmax(const py::tuple& csr_fields, int dtype, int64_t heads, Address score,
                          Address grad, Address out, int num_threads) {
  const CsrArgument csr(csr_fields);
  SegmentSoftmaxArgs args{csr.csr, scalar_type(dtype), heads, at(score), at(grad), at(out), {}};
  const int64_t size = compute_size_of(args.dtype);
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * 2 * heads * size,
                                   (2 * kChunkEdges * heads + 4 * heads + kMaxLanes) * size, 0,
                                   threads_for(csr.csr, 4 * heads, num_threads));
  prefer_huge_pages(out, csr.csr.num_edges * heads * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).segment_softmax(args);
}

// Room for what segment_matmul.cpp packs, for the widest vectors.
int64_t matmul_stage_bytes(const SegmentMatmulArgs& args) {
  const int64_t out_width = (args.out_width + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  const int64_t elements =
      (args.width + kMatmulBlockRows + 1) * out_width + kMatmulBlockRows * (args.width + kMaxLanes);
  return (elements + kMaxLanes) * compute_size_of(args.dtype);
}

void bind_segment_matmul(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                         int64_t width, Address y, int64_t y_stride, int64_t out_width,
                         Address weight, int64_t weight_stride, int64_t weight_row_stride,
                         int64_t weight_col_stride, Address bias, Address out, int num_threads) {
  const CsrArgument csr(csr_fields);
  SegmentMatmulArgs args{csr.csr,
                         scalar_type(dtype),
                         at(x),
                         x_stride,
                         width,
                         at(y),
                         y_stride,
                         out_width,
                         at(weight),
                         weight_stride,
                         weight_row_stride,
                         weight_col_stride,
                         at(bias),
                         at(out),
                         {}};
  const int64_t slots = args.y ? csr.csr.plan.header->num_slots : 0;
  Scratch scratch;
  args.workspace = scratch.reserve(slots * width * out_width * compute_size_of(args.dtype),
                                   matmul_stage_bytes(args), 0,
                                   threads_for(csr.csr, width * (out_width / 32 + 1), num_threads));
  prefer_huge_pages(out, (args.y ? csr.csr.num_rows * width : csr.csr.num_edges) * out_width *
                             size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).segment_matmul(args);
}

void bind_scatter_std(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                      int64_t width, bool unbiased, Address out, Address statistics,
                      int num_threads) {
  const CsrArgument csr(csr_fields);
  if (!csr.csr.indices && csr.csr.num_edges > 0)
    throw py::value_error("scatter_std needs the rows of each group");
  ScatterStdArgs args{csr.csr, scalar_type(dtype), at(x), x_stride, width, unbiased,
                      at(out), at(statistics),     {}};
  const int64_t size = compute_size_of(args.dtype);
  Scratch scratch;
  // Five vectors of moments.
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * 5 * size, 64, 0,
                                   threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(statistics, csr.csr.num_rows * 3 * width * size);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).scatter_std(args);
}

void bind_scale_by_group(int index_code, Address group, bool by_boundaries, int64_t num_groups,
                         int64_t num_rows, int dtype, Address x, int64_t x_stride, int64_t width,
                         bool exponential, Address statistics, Address scale, Address out,
                         int num_threads) {
  const bool serial = num_rows * width < kSerialElements;
  const ScaleByGroupArgs args{index_type(index_code),
                              at(group),
                              by_boundaries,
                              num_groups,
                              num_rows,
                              scalar_type(dtype),
                              at(x),
                              x_stride,
                              width,
                              exponential,
                              at(statistics),
                              at(scale),
                              at(out),
                              serial ? 1 : usable_threads(num_threads)};
  prefer_huge_pages(out, num_rows * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.dtype).scale_by_group(args);
}

// Returns false, before anything is written, where indptr does not go from 0 to num_edges.
bool bind_segment_gather(int index_code, Address indptr, int64_t num_rows, int64_t num_edges,
                         int64_t row_bytes, Address x, Address out, int num_threads) {
  const IndexType type = index_type(index_code);
  if (indptr_edges(type, at(indptr), num_rows) != num_edges) return false;
  const bool serial = num_edges * row_bytes < kSerialElements * 4;
  const SegmentGatherArgs args{
      type,      at(indptr), num_rows, num_edges,
      row_bytes, at(x),      at(out),  serial ? 1 : usable_threads(num_threads)};
  prefer_huge_pages(out, num_edges * row_bytes);
  py::gil_scoped_release release;
  kernels().segment_gather(args);
  return true;
}

void bind_gat_forward(const py::tuple& csr_fields, int dtype, Address x, int64_t heads,
                      int64_t head_width, Address score_src, Address score_dst, Address edge_score,
                      double negative_slope, double dropout, uint64_t seed, Address out,
                      Address wide_out, Address log_sum_exp, int num_threads) {
  const CsrArgument csr(csr_fields);
  GatForwardArgs args{csr.csr,         scalar_type(dtype),
                      at(x),           heads,
                      head_width,      at(score_src),
                      at(score_dst),   at(edge_score),
                      negative_slope,  {dropout, seed},
                      at(out),         at(wide_out),
                      at(log_sum_exp), {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace =
      scratch.reserve(csr.csr.plan.header->num_slots * (2 * heads * size + width * (size + 4)),
                      (kChunkEdges * heads + 3 * heads + 2 * kMaxLanes) * size + 64,
                      lane_table_bytes(width), threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).gat_forward(args);
}

void bind_gat_backward(const py::tuple& csr_fields, int dtype, Address x, int64_t heads,
                       int64_t head_width, Address score_src, Address packed_dst,
                       Address edge_score, Address grad, double negative_slope, double dropout,
                       uint64_t seed, Address grad_x, Address grad_score_src, Address grad_score,
                       int num_threads) {
  const CsrArgument csr(csr_fields);
  GatBackwardArgs args{csr.csr,
                       scalar_type(dtype),
                       at(x),
                       heads,
                       head_width,
                       at(score_src),
                       at(packed_dst),
                       at(edge_score),
                       at(grad),
                       negative_slope,
                       {dropout, seed},
                       at(grad_x),
                       at(grad_score_src),
                       at(grad_score),
                       {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace =
      scratch.reserve(csr.csr.plan.header->num_slots * (width + heads) * size,
                      (5 * (kChunkEdges * heads + kMaxLanes) + width + heads + kMaxLanes) * size, 0,
                      threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(grad_x, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(grad_score, csr.csr.num_edges * heads * size);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).gat_backward(args);
}

void bind_gat_pack(int dtype, int64_t num_dst, int64_t heads, int64_t head_width, Address score_dst,
                   Address log_sum_exp, Address out, Address grad, Address packed_dst,
                   int num_threads) {
  const GatPackArgs args{
      scalar_type(dtype),
      num_dst,
      heads,
      head_width,
      at(score_dst),
      at(log_sum_exp),
      at(out),
      at(grad),
      at(packed_dst),
      num_dst * heads * head_width < kSerialElements ? 1 : usable_threads(num_threads)};
  py::gil_scoped_release release;
  kernels(args.dtype).gat_pack(args);
}

// The places of sum, mean, max, min, var and std, and their number.
ReducePlaces reduce_places(const std::vector<int>& places) {
  if (places.size() != 7) throw py::value_error("the places of reductions are 6 and their number");
  for (int i = 0; i < 6; ++i) {
    if (places[i] >= places[6]) throw py::value_error("a reduction has no place in the result");
  }
  return {places[0], places[1], places[2], places[3], places[4], places[5], places[6]};
}

void bind_multi_reduce(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                       int64_t width, const std::vector<int>& places, Address out,
                       Address argument_max, Address argument_min, int argument_bytes, Address mean,
                       Address mean_rest, Address std, int num_threads) {
  const CsrArgument csr(csr_fields);
  MultiReduceArgs args{csr.csr,
                       scalar_type(dtype),
                       at(x),
                       x_stride,
                       width,
                       reduce_places(places),
                       at(out),
                       at(argument_max),
                       at(argument_min),
                       argument_size(argument_bytes),
                       at(mean),
                       at(mean_rest),
                       at(std),
                       {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t elements = csr.csr.num_rows * width;
  // Five vectors of moments, a value and a position of each of two selections.
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * 9 * size, 64, 0,
                                   threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(out, elements * args.places.count * size_of(args.dtype));
  for (const Address argument : {argument_max, argument_min}) {
    prefer_huge_pages(argument, elements * argument_bytes);
  }
  for (const Address kept : {mean, mean_rest, std}) prefer_huge_pages(kept, elements * size);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).multi_reduce(args);
}

void bind_multi_reduce_pack(int index_type_code, Address indptr, int64_t num_rows, int dtype,
                            int64_t width, const std::vector<int>& places, Address grad,
                            Address mean, int64_t mean_stride, Address mean_rest, Address std,
                            int64_t std_stride, Address packed, int num_threads) {
  const ReducePlaces where = reduce_places(places);
  const int64_t elements = num_rows * width;
  const MultiReducePackArgs args{index_type(index_type_code),
                                 at(indptr),
                                 num_rows,
                                 scalar_type(dtype),
                                 width,
                                 where,
                                 at(grad),
                                 at(mean),
                                 mean_stride,
                                 at(mean_rest),
                                 at(std),
                                 std_stride,
                                 at(packed),
                                 elements < kSerialElements ? 1 : usable_threads(num_threads)};
  prefer_huge_pages(packed, 3 * elements * compute_size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.dtype).multi_reduce_pack(args);
}

void bind_multi_reduce_backward(const py::tuple& csr_fields, int dtype, Address x, int64_t x_stride,
                                int64_t width, Address packed, Address grad_x, int num_threads) {
  const CsrArgument csr(csr_fields);
  MultiReduceBackwardArgs args{csr.csr, scalar_type(dtype), at(x),      x_stride,
                               width,   at(packed),         at(grad_x), {}};
  const int64_t size = compute_size_of(args.dtype);
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * size, 64, 0,
                                   threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(grad_x, csr.csr.num_rows * width * size);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).multi_reduce_backward(args);
}

void bind_dot_forward(const py::tuple& csr_fields, int dtype, int64_t heads, int64_t head_width,
                      Address query, Address key, Address value, Address edge_bias, Address edge_x,
                      double scale, double dropout, uint64_t seed, Address out, Address wide_out,
                      Address log_sum_exp, int num_threads) {
  const CsrArgument csr(csr_fields);
  DotForwardArgs args{
      csr.csr,      scalar_type(dtype), heads,      head_width, at(query),       at(key),
      at(value),    at(edge_bias),      at(edge_x), scale,      {dropout, seed}, at(out),
      at(wide_out), at(log_sum_exp),    {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace = scratch.reserve(
      csr.csr.plan.header->num_slots * (2 * heads + width + kMaxLanes) * size,
      (2 * (kChunkEdges * heads + kMaxLanes) + 2 * width + 3 * heads + 2 * kMaxLanes) * size,
      lane_table_bytes(width), threads_for(csr.csr, 2 * width, num_threads));
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).dot_forward(args);
}

void bind_dot_backward(const py::tuple& csr_fields, int dtype, int64_t heads, int64_t head_width,
                       Address query, Address key, Address value, Address edge_bias, Address edge_x,
                       Address out, Address log_sum_exp, Address grad, double scale, double dropout,
                       uint64_t seed, Address packed_dst, Address grad_key, Address grad_value,
                       Address grad_score, Address grad_edge_x, int num_threads) {
  const CsrArgument csr(csr_fields);
  DotBackwardArgs args{
      csr.csr,         scalar_type(dtype), heads,          head_width,      at(query),
      at(key),         at(value),          at(edge_bias),  at(edge_x),      at(out),
      at(log_sum_exp), at(grad),           scale,          {dropout, seed}, at(packed_dst),
      at(grad_key),    at(grad_value),     at(grad_score), at(grad_edge_x), {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace =
      scratch.reserve(csr.csr.plan.header->num_slots * 2 * (width + kMaxLanes) * size,
                      (6 * (kDotBlockEdges * heads + kMaxLanes) + 5 * width + 4 * kMaxLanes) * size,
                      lane_table_bytes(width), threads_for(csr.csr, 2 * width, num_threads));
  prefer_huge_pages(grad_key, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(grad_value, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(grad_score, csr.csr.num_edges * heads * size);
  prefer_huge_pages(packed_dst, csr.csr.num_cols * 2 * heads * size);
  prefer_huge_pages(grad_edge_x, edge_x ? csr.csr.num_edges * width * size_of(args.dtype) : 0);
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).dot_backward(args);
}

void bind_dot_backward_query(const py::tuple& csr_fields, int dtype, int64_t heads,
                             int64_t head_width, Address key, Address edge_x, Address grad_score,
                             double scale, Address grad_query, int num_threads) {
  const CsrArgument csr(csr_fields);
  DotQueryArgs args{csr.csr,    scalar_type(dtype), heads, head_width,     at(key),
                    at(edge_x), at(grad_score),     scale, at(grad_query), {}};
  const int64_t size = compute_size_of(args.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace = scratch.reserve(
      csr.csr.plan.header->num_slots * width * (size + 4), (kChunkEdges * heads + kMaxLanes) * size,
      lane_table_bytes(width), threads_for(csr.csr, width, num_threads));
  prefer_huge_pages(grad_query, csr.csr.num_rows * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels(args.csr, args.dtype).dot_backward_query(args);
}

void bind_gatv2_forward(const py::tuple& csr_fields, int dtype, int64_t heads, int64_t head_width,
                        Address x_src, Address x_dst, Address att, Address edge_x,
                        double negative_slope, double dropout, uint64_t seed, Address out,
                        Address wide_out, Address log_sum_exp, int num_threads) {
  const CsrArgument csr(csr_fields);
  Gatv2ForwardArgs args{{csr.csr,
                         scalar_type(dtype),
                         heads,
                         head_width,
                         at(x_src),
                         at(x_dst),
                         at(att),
                         at(edge_x),
                         negative_slope,
                         {dropout, seed}},
                        at(out),
                        at(wide_out),
                        at(log_sum_exp),
                        {}};
  const int64_t size = compute_size_of(args.in.dtype);
  const int64_t width = heads * head_width;
  Scratch scratch;
  args.workspace =
      scratch.reserve(csr.csr.plan.header->num_slots * (2 * heads + width) * size,
                      (kChunkEdges * heads + 3 * heads + 2 * width + 4 * kMaxLanes) * size,
                      lane_table_bytes(width), threads_for(csr.csr, 2 * width, num_threads));
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.in.dtype));
  py::gil_scoped_release release;
  kernels(args.in.csr, args.in.dtype).gatv2_forward(args);
}

void bind_gatv2_backward(const py::tuple& csr_fields, const py::tuple& reverse_fields, int dtype,
                         int64_t heads, int64_t head_width, Address x_src, Address x_dst,
                         Address att, Address edge_x, double negative_slope, double dropout,
                         uint64_t seed, Address out, Address log_sum_exp, Address grad,
                         Address grad_x_src, Address grad_x_dst, Address grad_att,
                         Address grad_edge_x, int num_threads) {
  const CsrArgument csr(csr_fields);
  const CsrArgument reverse(reverse_fields);
  Gatv2BackwardArgs args{{csr.csr,
                          scalar_type(dtype),
                          heads,
                          head_width,
                          at(x_src),
                          at(x_dst),
                          at(att),
                          at(edge_x),
                          negative_slope,
                          {dropout, seed}},
                         reverse.csr,
                         at(out),
                         at(log_sum_exp),
                         at(grad),
                         at(grad_x_src),
                         at(grad_x_dst),
                         at(grad_att),
                         at(grad_edge_x),
                         nullptr,
                         {}};
  const int64_t size = compute_size_of(args.in.dtype);
  const int64_t width = heads * head_width;
  const PlanHeader& plan = *csr.csr.plan.header;
  const int64_t partial_rows =
      std::max(plan.num_items + plan.num_slots, reverse.csr.plan.header->num_slots);
  Scratch scratch;
  args.workspace = scratch.reserve(
      partial_rows * (width + kMaxLanes) * size,
      kChunkEdges * 8 +
          (4 * (kChunkEdges * heads + kMaxLanes) + 4 * (width + kMaxLanes) + 3 * heads) * size,
      lane_table_bytes(width), threads_for(csr.csr, 4 * width, num_threads));
  // Signs take at most half a byte per column, in vectors of two. What is not written takes none.
  const int64_t record_bytes = 2 * heads * size + width / 2 + kMaxLanes;
  Scratch records;
  if (grad_x_src) {
    args.records = records.reserve(csr.csr.num_edges * record_bytes, 0, 0, 1).partial;
    prefer_huge_pages(reinterpret_cast<Address>(args.records), csr.csr.num_edges * record_bytes);
    prefer_huge_pages(grad_x_src, csr.csr.num_cols * width * size_of(args.in.dtype));
  }
  prefer_huge_pages(grad_x_dst, csr.csr.num_rows * width * size_of(args.in.dtype));
  prefer_huge_pages(grad_edge_x,
                    grad_edge_x ? csr.csr.num_edges * width * size_of(args.in.dtype) : 0);
  py::gil_scoped_release release;
  kernels(args.in.csr, args.in.dtype).gatv2_backward(args);
}

// Returns (first bad edge or -1, whether the edges were sorted by row already).
std::pair<int64_t, bool> bind_sort_edges(int input_type, Address rows, int64_t row_stride,
                                         Address cols, int64_t col_stride, int64_t num_edges,
                                         int64_t num_rows, int64_t num_cols, int output_type,
                                         Address indptr, Address indices, Address edge_id,
                                         int num_threads) {
  const SortEdgesArgs args{index_type(input_type),
                           at(rows),
                           row_stride,
                           at(cols),
                           col_stride,
                           num_edges,
                           num_rows,
                           num_cols,
                           index_type(output_type),
                           at(indptr),
                           at(indices),
                           at(edge_id),
                           num_threads};
  prefer_huge_pages(indices, num_edges * (output_type == 0 ? 4 : 8));
  prefer_huge_pages(edge_id, num_edges * (output_type == 0 ? 4 : 8));
  py::gil_scoped_release release;
  const SortEdgesResult result = sort_edges(args);
  return {result.bad_edge, result.sorted};
}

void bind_reverse_csr(int type, Address indptr, Address indices, Address edge_id, int64_t num_rows,
                      int64_t num_cols, int64_t num_edges, Address rev_indptr, Address rev_indices,
                      Address rev_edge_id, int num_threads) {
  const ReverseArgs args{index_type(type), at(indptr),      at(indices), at(edge_id),
                         num_rows,         num_cols,        num_edges,   at(rev_indptr),
                         at(rev_indices),  at(rev_edge_id), num_threads};
  py::gil_scoped_release release;
  reverse_csr(args);
}

int64_t bind_indptr_edges(int type, Address indptr, int64_t num_rows) {
  return indptr_edges(index_type(type), at(indptr), num_rows);
}

void bind_make_plan(int type, Address indptr, int64_t num_rows, int64_t num_edges, Address plan) {
  make_plan(index_type(type), at(indptr), num_rows, num_edges, at<int64_t>(plan));
}

int64_t bind_fennel_pass(int type, Address indptr, Address indices, Address rev_indptr,
                         Address rev_indices, int64_t num_nodes, int64_t num_parts,
                         int64_t first_node, Address weight, double price, double capacity,
                         Address part) {
  if (num_parts < 1) throw py::value_error("there must be a part");
  const FennelArgs args{index_type(type),        at(indptr), at(indices), at(rev_indptr),
                        at(rev_indices),         num_nodes,  num_parts,   first_node,
                        at<const float>(weight), price,      capacity,    at<int32_t>(part)};
  py::gil_scoped_release release;
  return fennel_pass(args);
}

bool bind_is_symmetric(int type, Address indptr, Address indices, int64_t num_nodes) {
  py::gil_scoped_release release;
  return is_symmetric(index_type(type), at(indptr), at(indices), num_nodes);
}

py::dict build_info() {
  py::dict info;
  info["version"] = GNNKERN_VERSION;
  info["compiler"] = GNNKERN_COMPILER;
  info["compiled_isas"] = GNNKERN_ISAS;
  info["isas"] = available_isas();
  info["isa"] = kernels().name;
  info["cuda"] = GNNKERN_BUILD_CUDA;
  info["sanitize"] = GNNKERN_BUILD_SANITIZE;
  info["openmp_threads"] = omp_get_max_threads();
  info["chunk_edges"] = kChunkEdges;
  return info;
}

}  // namespace
}  // namespace gnnkern

PYBIND11_MODULE(_C, m) {
  using namespace gnnkern;
  watch_fork();
  m.doc() = "Native kernels of gnnkern on raw pointers; gnnkern._native is the checked way in.";
  m.def("row_reduce", &bind_row_reduce);
  m.def("message_reduce", &bind_message_reduce);
  m.def("select_backward", &bind_select_backward);
  m.def("sddmm", &bind_sddmm);
  m.def("sddmm_anywhere", &bind_sddmm_anywhere);
  m.def("segment_softmax", &bind_segment_softmax);
  m.def("segment_gather", &bind_segment_gather);
  m.def("segment_matmul", &bind_segment_matmul);
  m.def("scatter_std", &bind_scatter_std);
  m.def("scale_by_group", &bind_scale_by_group);
  m.def("gat_forward", &bind_gat_forward);
  m.def("gat_backward", &bind_gat_backward);
  m.def("gat_pack", &bind_gat_pack);
  m.def("gatv2_forward", &bind_gatv2_forward);
  m.def("gatv2_backward", &bind_gatv2_backward);
  m.def("multi_reduce", &bind_multi_reduce);
  m.def("multi_reduce_pack", &bind_multi_reduce_pack);
  m.def("multi_reduce_backward", &bind_multi_reduce_backward);
  m.def("dot_forward", &bind_dot_forward);
  m.def("dot_backward", &bind_dot_backward);
  m.def("dot_backward_query", &bind_dot_backward_query);
  m.def("sort_edges", &bind_sort_edges);
  m.def("reverse_csr", &bind_reverse_csr);
  m.def("make_plan", &bind_make_plan);
  m.def("indptr_edges", &bind_indptr_edges);
  m.def("plan_length", &plan_length);
  m.def("fennel_pass", &bind_fennel_pass);
  m.def("is_symmetric", &bind_is_symmetric);
  m.def("set_isa", &set_isa);
  m.def("set_column_blocks", &set_column_blocks);
  m.def("is_much_read", &is_much_read);
  m.def("build_info", &build_info);
}
