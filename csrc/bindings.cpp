// The Python module `gnnkern._C`: pointers and sizes in, nothing out but errors.
//
// Callers (gnnkern/_native.py) have checked shapes, types and devices. What is checked here guards
// memory: that a plan belongs to its matrix and that enumerations hold known values.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "cpu/parallel.h"
#include "cpu/runtime.h"
#include "cpu/sort_edges.h"

namespace py = pybind11;

namespace gnnkern {
namespace {

using Address = uintptr_t;

template <typename T = void>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

ScalarType scalar_type(int code) {
  if (code < 0 || code > 3) throw py::value_error("unknown scalar type " + std::to_string(code));
  return static_cast<ScalarType>(code);
}
IndexType index_type(int code) {
  if (code < 0 || code > 1) throw py::value_error("unknown index type " + std::to_string(code));
  return static_cast<IndexType>(code);
}
Reduce reduction(int code) {
  if (code < 0 || code > 4) throw py::value_error("unknown reduction " + std::to_string(code));
  return static_cast<Reduce>(code);
}
EdgeOp edge_op(int code) {
  if (code < 0 || code > 4) throw py::value_error("unknown edge op " + std::to_string(code));
  return static_cast<EdgeOp>(code);
}
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
                     Address argument, int argument_bytes, int num_threads) {
  const CsrArgument csr(csr_fields);
  RowReduceArgs args{
      csr.csr, scalar_type(dtype), at(x),   x_stride, width,        at(weight),
      heads,   reduction(reduce),  at(out), nullptr,  at(argument), argument_size(argument_bytes),
      {}};
  const int64_t size = compute_size_of(args.dtype);
  const int threads = threads_for(csr.csr, width, num_threads);
  Scratch scratch;
  args.workspace = scratch.reserve(csr.csr.plan.header->num_slots * width * 2 * size,
                                   kChunkEdges * ((weight ? heads * size : 0) + 8) + kMaxLanes * 8,
                                   weight ? lane_table_bytes(width) : 0, threads);
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(argument, csr.csr.num_rows * width * argument_bytes);
  py::gil_scoped_release release;
  kernels().row_reduce(args);
}

// `selections` holds pairs of addresses: gradient, argument.
void bind_select_backward(const py::tuple& csr_fields, int dtype,
                          const std::vector<std::pair<Address, Address>>& selections,
                          int64_t grad_stride, int64_t width, Address weight, int64_t heads,
                          int argument_bytes, Address grad_x, Address grad_weight, Address base,
                          Address x, int64_t x_stride, int num_threads) {
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
                          {}};
  const int threads = threads_for(csr.csr, width, num_threads);
  const bool sums_beside = args.grad_x && size_of(args.dtype) == 2;
  Scratch scratch;
  args.workspace = scratch.reserve(0, sums_beside ? csr.csr.num_cols * 16 * 4 : 64, 0, threads);
  prefer_huge_pages(grad_x, csr.csr.num_cols * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels().select_backward(args);
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
  kernels().sddmm(args);
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
  kernels().segment_softmax(args);
}

void bind_segment_gather(const py::tuple& csr_fields, int64_t row_bytes, Address x, Address out,
                         int num_threads) {
  const CsrArgument csr(csr_fields);
  const SegmentGatherArgs args{csr.csr, row_bytes, at(x), at(out),
                               threads_for(csr.csr, row_bytes / 4, num_threads)};
  prefer_huge_pages(out, csr.csr.num_edges * row_bytes);
  py::gil_scoped_release release;
  kernels().segment_gather(args);
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
  kernels().gat_forward(args);
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
  kernels().gat_backward(args);
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
  kernels().gat_pack(args);
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
  kernels().multi_reduce(args);
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
  kernels().multi_reduce_pack(args);
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
  kernels().multi_reduce_backward(args);
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
      (2 * (kChunkEdges * heads + kMaxLanes) + width + 3 * heads + kMaxLanes) * size,
      lane_table_bytes(width), threads_for(csr.csr, 2 * width, num_threads));
  prefer_huge_pages(out, csr.csr.num_rows * width * size_of(args.dtype));
  py::gil_scoped_release release;
  kernels().dot_forward(args);
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
                      (6 * (kDotBlockEdges * heads + kMaxLanes) + 4 * width + 2 * kMaxLanes) * size,
                      lane_table_bytes(width), threads_for(csr.csr, 2 * width, num_threads));
  prefer_huge_pages(grad_key, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(grad_value, csr.csr.num_rows * width * size_of(args.dtype));
  prefer_huge_pages(grad_score, csr.csr.num_edges * heads * size);
  prefer_huge_pages(packed_dst, csr.csr.num_cols * 2 * heads * size);
  prefer_huge_pages(grad_edge_x, edge_x ? csr.csr.num_edges * width * size_of(args.dtype) : 0);
  py::gil_scoped_release release;
  kernels().dot_backward(args);
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
  kernels().dot_backward_query(args);
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

void bind_make_plan(int type, Address indptr, int64_t num_rows, int64_t num_edges, Address plan) {
  make_plan(index_type(type), at(indptr), num_rows, num_edges, at<int64_t>(plan));
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
  m.def("select_backward", &bind_select_backward);
  m.def("sddmm", &bind_sddmm);
  m.def("segment_softmax", &bind_segment_softmax);
  m.def("segment_gather", &bind_segment_gather);
  m.def("gat_forward", &bind_gat_forward);
  m.def("gat_backward", &bind_gat_backward);
  m.def("gat_pack", &bind_gat_pack);
  m.def("multi_reduce", &bind_multi_reduce);
  m.def("multi_reduce_pack", &bind_multi_reduce_pack);
  m.def("multi_reduce_backward", &bind_multi_reduce_backward);
  m.def("dot_forward", &bind_dot_forward);
  m.def("dot_backward", &bind_dot_backward);
  m.def("dot_backward_query", &bind_dot_backward_query);
  m.def("sort_edges", &bind_sort_edges);
  m.def("reverse_csr", &bind_reverse_csr);
  m.def("make_plan", &bind_make_plan);
  m.def("plan_length", &plan_length);
  m.def("set_isa", &set_isa);
  m.def("build_info", &build_info);
}
