#include "runtime.h"

#include <pthread.h>

#include <atomic>

#include "parallel.h"

namespace gnnkern {

namespace {

#define GNNKERN_TABLE(isa) \
  {#isa,                   \
   isa::row_reduce,        \
   isa::select_backward,   \
   isa::sddmm,             \
   isa::segment_softmax,   \
   isa::segment_gather,    \
   isa::gat_forward,       \
   isa::gat_backward,      \
   isa::gat_pack,          \
   isa::multi_reduce,      \
   isa::multi_reduce_pack, \
   isa::multi_reduce_backward}

// Best first.
const KernelTable kTables[] = {
#if defined(GNNKERN_HAVE_AVX512)
    GNNKERN_TABLE(avx512),
#endif
#if defined(GNNKERN_HAVE_AVX2)
    GNNKERN_TABLE(avx2),
#endif
    GNNKERN_TABLE(baseline),
};

bool runs_here(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx512") return __builtin_cpu_supports("x86-64-v4");
  if (isa == "avx2") return __builtin_cpu_supports("x86-64-v3");
#endif
  return isa == "baseline";
}

const KernelTable* best_table() {
  for (const KernelTable& table : kTables) {
    if (runs_here(table.name)) return &table;
  }
  return nullptr;
}

std::atomic<const KernelTable*> g_table{best_table()};
std::atomic<bool> g_forked{false};

}  // namespace

const KernelTable& kernels() { return *g_table.load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelTable& table : kTables) {
    if (runs_here(table.name)) names.emplace_back(table.name);
  }
  return names;
}

void set_isa(const std::string& name) {
  for (const KernelTable& table : kTables) {
    if (name == table.name && runs_here(name)) {
      g_table = &table;
      return;
    }
  }
  throw std::invalid_argument("set_isa: '" + name + "' was not compiled or does not run here");
}

int usable_threads(int requested) {
  if (requested < 1 || g_forked.load(std::memory_order_relaxed)) return 1;
  return requested;
}

void watch_fork() {
  pthread_atfork(nullptr, nullptr, [] { g_forked = true; });
}

}  // namespace gnnkern
