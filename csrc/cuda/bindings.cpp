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

void bind_make_plan(Address plan, Address indptr, int index_code, int64_t num_rows,
                    int64_t num_edges, int64_t chunk_edges, Address stream) {
  make_plan({at(plan), at(indptr), index_type(index_code), num_rows, num_edges, chunk_edges},
            at(stream));
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
  m.def("make_plan", &bind_make_plan);
  m.def("row_reduce", &bind_row_reduce);
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
