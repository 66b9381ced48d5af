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

void bind_scatter_atomics(Address out, Address cells, Address sizes, Address status, Address x,
                          Address index, int index_code, int dtype, int reduce, int64_t num_rows,
                          int64_t num_groups, int64_t width, int64_t x_stride, Address stream) {
  scatter_atomics(
      {at(out), at(cells), at(sizes), at(status), at(x), at(index), index_type(index_code),
       scalar_type(dtype), reduction(reduce), num_rows, num_groups, width, x_stride},
      at(stream));
}

// What _shape of gnnkern/_cuda/attention_loops.py returns.
AttentionShape attention_shape(const py::tuple& fields) {
  if (fields.size() != 8) throw py::value_error("the shape of attention has 8 fields");
  AttentionShape shape{};
  shape.walk = walk_argument(fields[0].cast<py::tuple>());
  shape.dtype = scalar_type(fields[1].cast<int>());
  shape.heads = fields[2].cast<int64_t>();
  shape.head_width = fields[3].cast<int64_t>();
  shape.dropout = {at<const int64_t>(fields[4].cast<Address>()), fields[5].cast<uint32_t>(),
                   fields[6].cast<double>()};
  shape.factor = fields[7].cast<double>();
  return shape;
}

template <void (*launcher)(const AttentionArgs&, void*)>
void bind_attention(const py::tuple& shape, Address own, Address key, Address value, Address att,
                    Address edge_score, Address edge_x, Address out, Address wide_out,
                    Address log_sum_exp, Address largest, Address total, Address acc,
                    Address stream) {
  launcher({attention_shape(shape), at(own), at(key), at(value), at(att), at(edge_score),
            at(edge_x), at(out), at(wide_out), at(log_sum_exp), at(largest), at(total), at(acc)},
           at(stream));
}

void bind_attention_statistics(int dtype, int64_t num_rows, int64_t head_width, Address statistics,
                               Address log_sum_exp, Address out, Address grad, Address score,
                               Address stream) {
  attention_statistics({scalar_type(dtype), num_rows, head_width, at(statistics), at(log_sum_exp),
                        at(out), at(grad), at(score)},
                       at(stream));
}

template <void (*launcher)(const AttentionSourceArgs&, void*)>
void bind_attention_backward(const py::tuple& shape, Address grad_value, Address grad_key,
                             Address grad_score, Address grad_edge_score, Address grad_edge_x,
                             Address value_sum, Address key_sum, Address key, Address value,
                             Address query, Address grad, Address statistics, Address edge_score,
                             Address edge_x, Address stream) {
  launcher({attention_shape(shape), at(grad_value), at(grad_key), at(grad_score),
            at(grad_edge_score), at(grad_edge_x), at(value_sum), at(key_sum), at(key), at(value),
            at(query), at(grad), at(statistics), at(edge_score), at(edge_x)},
           at(stream));
}

void bind_dot_attention_backward_query(const py::tuple& shape, Address grad_query,
                                       Address query_sum, Address key, Address edge_x,
                                       Address grad_score, Address stream) {
  dot_attention_backward_query(
      {attention_shape(shape), at(grad_query), at(query_sum), at(key), at(edge_x), at(grad_score)},
      at(stream));
}

py::tuple bind_gatv2_attention_sizes(const py::tuple& fields) {
  const AttentionShape shape = attention_shape(fields);
  return py::make_tuple(gatv2_blocks(shape), gatv2_sign_bytes(shape));
}

void bind_gatv2_attention_backward(const py::tuple& shape, const py::tuple& reverse,
                                   Address grad_x_src, Address grad_x_dst, Address att_sum,
                                   int64_t num_sums, Address grad_edge_x, Address kept,
                                   Address grad_score, Address signs, Address dst_sum,
                                   Address src_sum, Address x_src, Address x_dst, Address att,
                                   Address edge_x, Address grad, Address statistics,
                                   Address stream) {
  gatv2_attention_backward({attention_shape(shape),
                            at(grad_x_dst),
                            at(att_sum),
                            num_sums,
                            at(grad_edge_x),
                            {at(kept), at(grad_score), at<uint8_t>(signs)},
                            at(dst_sum),
                            at(x_src),
                            at(x_dst),
                            at(att),
                            at(edge_x),
                            at(grad),
                            at(statistics),
                            walk_argument(reverse),
                            at(grad_x_src),
                            at(src_sum)},
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
  m.def("scatter_atomics", &bind_scatter_atomics);
  m.def("gat_attention", &bind_attention<gat_attention>);
  m.def("dot_attention", &bind_attention<dot_attention>);
  m.def("gatv2_attention", &bind_attention<gatv2_attention>);
  m.def("attention_statistics", &bind_attention_statistics);
  m.def("gat_attention_backward", &bind_attention_backward<gat_attention_backward>);
  m.def("dot_attention_backward", &bind_attention_backward<dot_attention_backward>);
  m.def("dot_attention_backward_query", &bind_dot_attention_backward_query);
  m.def("gatv2_attention_sizes", &bind_gatv2_attention_sizes);
  m.def("gatv2_attention_backward", &bind_gatv2_attention_backward);
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
