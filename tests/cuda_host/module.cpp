// The Python module `_cuda_host`: the launchers of csrc/cuda on the host executor, its settings,
// and the kernels that its own tests run. Tests pass numpy arrays there.

#include <pybind11/numpy.h>

#include "bindings.h"
#include "executor.h"
#include "planted.h"

namespace gnnkern::cuda {
void bind_cuda(py::module_& m);
}  // namespace gnnkern::cuda

namespace {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
Array<T> shuffles(Array<T> in, int amount, int width) {
  Array<T> out({4, 32});
  planted::shuffles(out.mutable_data(), in.data(), amount, width);
  return out;
}

// An array that `fill` is given.
template <typename T, typename Fill>
Array<T> filled(std::vector<py::ssize_t> shape, Fill fill) {
  Array<T> out(std::move(shape));
  fill(out.mutable_data());
  return out;
}

py::tuple conversions(Array<float> in) {
  Array<float> from_half(65536), from_bfloat16(65536);
  Array<unsigned short> to_half(in.size()), to_bfloat16(in.size());
  planted::conversions(from_half.mutable_data(), from_bfloat16.mutable_data(),
                       to_half.mutable_data(), to_bfloat16.mutable_data(), in.data(),
                       static_cast<int>(in.size()));
  return py::make_tuple(from_half, from_bfloat16, to_half, to_bfloat16);
}

}  // namespace

PYBIND11_MODULE(_cuda_host, m) {
  m.doc() = "The CUDA kernels of gnnkern on fibers of this processor, and tests of that.";
  gnnkern::cuda::bind_cuda(m);
  m.def("set_seed", &cuda_host::set_seed);
  m.def("set_poison", &cuda_host::set_poison);

  m.def("fault", &planted::fault);
  m.def("neighbour", [](bool in_warp, bool waits) {
    return filled<int>({64}, [&](int* out) { planted::neighbour(out, in_warp, waits); });
  });
  m.def("order", [](int blocks, int threads) {
    return filled<int>({blocks, threads}, [&](int* out) { planted::order(out, blocks, threads); });
  });
  m.def("indices", [] { return filled<int>({288}, planted::indices); });
  m.def("poison", [](int blocks) {
    return filled<float>({blocks, 2}, [&](float* out) { planted::poison(out, blocks); });
  });
  m.def("shuffles", &shuffles<float>);
  m.def("shuffles_double", &shuffles<double>);
  m.def("votes", [](Array<int> in) {
    return filled<int>({13, 32}, [&](int* out) { planted::votes(out, in.data()); });
  });
  m.def("atomics", [](Array<int> out, Array<int> in) {
    planted::atomics(out.mutable_data(), in.data(), static_cast<int>(in.size() / 32));
    return out;
  });
  m.def("vector_atomics", [](Array<float> in) {
    return filled<float>({6}, [&](float* out) {
      std::fill_n(out, 6, 0.0f);
      planted::vector_atomics(out, in.data(), static_cast<int>(in.size() / 32));
    });
  });
  m.def("conversions", &conversions);
}
