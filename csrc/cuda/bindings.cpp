// The CUDA launchers for Python, in whichever module is built: gnnkern._C_cuda for devices, or
// _cuda_host for the host executor of the tests.
//
// gnnkern/_cuda is the checked way in. Every launcher takes the stream last.

#include "bindings.h"

#include "cuda/kernels.h"

namespace gnnkern::cuda {
namespace {

// What Walk.fields of gnnkern/_walk.py returns.
Walk walk_argument(const py::tuple& fields) {
  if (fields.size() != 8) throw py::value_error("a walk has 8 fields");
  const auto pointer = [&](int i) { return at(fields[i].cast<Address>()); };
  const auto size = [&](int i) { return fields[i].cast<int64_t>(); };
  return {pointer(1), pointer(2), pointer(3), pointer(4), index_type(fields[0].cast<int>()),
          size(5),    size(6),    size(7)};
}

void bind_sort_edges(Address rows, int64_t row_stride, Address cols, int64_t col_stride,
                     Address begins, int64_t num_begins, Address numbers, int index_code,
                     int64_t num_edges, int64_t num_rows, int64_t num_cols, int out_code,
                     Address indptr, Address indices, Address edge_id, Address status,
                     Address workspace, int64_t workspace_bytes, Address stream) {
  sort_edges({at(rows), at(cols), at(begins), at(numbers), index_type(index_code), row_stride,
              col_stride, num_edges, num_rows, num_cols, num_begins, index_type(out_code),
              at(indptr), at(indices), at(edge_id), at(status), at(workspace), workspace_bytes},
             at(stream));
}

void bind_make_plan(Address plan, Address indptr, int index_code, int64_t num_rows,
                    int64_t num_edges, int64_t chunk_edges, Address stream) {
  make_plan({at(plan), at(indptr), index_type(index_code), num_rows, num_edges, chunk_edges},
            at(stream));
}

void bind_inverse(Address out, Address permutation, int index_code, int64_t count, Address stream) {
  inverse({at(out), at(permutation), index_type(index_code), count}, at(stream));
}

void bind_row_reduce(const py::tuple& walk, Address out, Address argument, int argument_size,
                     int64_t width, Address chunk_first, Address chunk_second, int dtype,
                     int reduce, Address x, Address edge, Address x_columns, Address edge_columns,
                     int64_t x_stride, int64_t edge_width, int64_t group, int op, Address winner,
                     int winner_size, Address winner_indptr, Address winner_position,
                     Address stream) {
  row_reduce({walk_argument(walk),
              {at(out), at(argument), argument_size, width},
              {at(chunk_first), at(chunk_second)},
              scalar_type(dtype),
              reduction(reduce),
              at(x),
              at(edge),
              at<int32_t>(x_columns),
              at<int32_t>(edge_columns),
              x_stride,
              edge_width,
              group,
              edge_op(op),
              at(winner),
              winner_size,
              at(winner_indptr),
              at(winner_position)},
             at(stream));
}

// An operand of an edge: (address, table of columns, stride, end).
EdgeOperand operand_argument(const py::tuple& fields) {
  if (fields.size() != 4) throw py::value_error("an operand has 4 fields");
  return {at(fields[0].cast<Address>()), at<int32_t>(fields[1].cast<Address>()),
          fields[2].cast<int64_t>(), edge_end(fields[3].cast<int>())};
}

void bind_edge_products(const py::tuple& walk, Address out, int out_dtype, int64_t out_width,
                        int64_t group, int dtype, const py::tuple& lhs, const py::tuple& rhs,
                        int op, Address winner, int winner_size, Address stream) {
  edge_products(
      {walk_argument(walk), at(out), scalar_type(out_dtype), out_width, group, scalar_type(dtype),
       operand_argument(lhs), operand_argument(rhs), edge_op(op), at(winner), winner_size},
      at(stream));
}

void bind_segment_softmax(const py::tuple& walk, Address out, Address x, Address grad,
                          Address chunk_first, Address chunk_second, int dtype, int64_t width,
                          Address stream) {
  segment_softmax({walk_argument(walk),
                   at(out),
                   at(x),
                   at(grad),
                   {at(chunk_first), at(chunk_second)},
                   scalar_type(dtype),
                   width},
                  at(stream));
}

void bind_scale_by_group(const py::tuple& walk, Address out, Address x, Address index,
                         Address statistics, Address scale, int dtype, int64_t width,
                         int64_t x_stride, bool is_exponential, Address stream) {
  scale_by_group({walk_argument(walk), at(out), at(x), at(index), at(statistics), at(scale),
                  scalar_type(dtype), width, x_stride, is_exponential},
                 at(stream));
}

void bind_gather_rows(Address out, Address x, Address index, int index_code, int64_t num_rows,
                      int64_t row_bytes, int64_t x_row_bytes, Address stream) {
  gather_rows({at(out), at(x), at(index), index_type(index_code), num_rows, row_bytes, x_row_bytes},
              at(stream));
}

void bind_scatter_add_rows(Address out, Address x, Address target, Address begin, Address order,
                           int dtype, int index_code, int64_t num_rows, int64_t width,
                           int64_t out_stride, Address stream) {
  scatter_add_rows({at(out), at(x), at(target), at(begin), at(order), scalar_type(dtype),
                    index_type(index_code), num_rows, width, out_stride},
                   at(stream));
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("unusable", &unusable);
  m.def("sort_edges_bytes", &sort_edges_bytes);
  m.def("sort_edges", &bind_sort_edges);
  m.def("make_plan", &bind_make_plan);
  m.def("inverse", &bind_inverse);
  m.def("row_reduce", &bind_row_reduce);
  m.def("edge_products", &bind_edge_products);
  m.def("segment_softmax", &bind_segment_softmax);
  m.def("scale_by_group", &bind_scale_by_group);
  m.def("gather_rows", &bind_gather_rows);
  m.def("scatter_add_rows", &bind_scatter_add_rows);
}

}  // namespace gnnkern::cuda

#if !defined(GNNKERN_CUDA_HOST)
PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "CUDA kernels of gnnkern on raw pointers; gnnkern._cuda is the checked way in.";
  m.attr("architectures") = GNNKERN_BUILD_CUDA;
  gnnkern::cuda::bind_cuda(m);
}
#endif
