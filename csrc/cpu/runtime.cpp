#include "runtime.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <limits>

#include "parallel.h"

namespace gnnkern {

namespace {

#define GNNKERN_TABLE(isa, wide_rows) \
  {#isa,                              \
   wide_rows,                         \
   isa::row_reduce,                   \
   isa::message_reduce,               \
   isa::select_backward,              \
   isa::sddmm,                        \
   isa::segment_softmax,              \
   isa::segment_gather,               \
   isa::segment_matmul,               \
   isa::scatter_std,                  \
   isa::scale_by_group,               \
   isa::gat_forward,                  \
   isa::gat_backward,                 \
   isa::gat_pack,                     \
   isa::gatv2_forward,                \
   isa::gatv2_backward,               \
   isa::multi_reduce,                 \
   isa::multi_reduce_pack,            \
   isa::multi_reduce_backward,        \
   isa::dot_forward,                  \
   isa::dot_backward,                 \
   isa::dot_backward_query}

// Best first.
const KernelTable kTables[] = {
#if defined(GNNKERN_HAVE_AVX512)
    GNNKERN_TABLE(avx512, false),
#endif
#if defined(GNNKERN_HAVE_AVX2)
    GNNKERN_TABLE(avx2, false),
#endif
#if defined(GNNKERN_HAVE_BASELINE)
    GNNKERN_TABLE(baseline, true),
#endif
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

// Measured on 2 threads. Where the last level is a mesh (Xeon, Sapphire Rapids) rows are worth
// fetching ahead as soon as they leave the second level: a sum takes 12 to 17% less on tables of 13
// and 26 MB, 27 to 36% less on 44 and 87 MB. Where it is near (EPYC, 32 MB) fetches cost a fifth
// until the table passes it.
int64_t find_near_table_bytes() {
#if defined(__x86_64__) && defined(_SC_LEVEL2_CACHE_SIZE)
  if (__builtin_cpu_is("intel")) {
    const int64_t second_level = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (second_level > 0) return second_level;
  }
#endif
  return 32 << 20;
}

const int64_t g_near_table_bytes = find_near_table_bytes();
std::atomic<const KernelTable*> g_table{best_table()};
std::atomic<bool> g_forked{false};

}  // namespace

const KernelTable& kernels() { return *g_table.load(std::memory_order_relaxed); }

const KernelTable& kernels(const Csr& csr) {
  const KernelTable& table = kernels();
  // Rows of segments are their edges.
  const int64_t rows = csr.indices ? csr.num_cols : csr.num_edges;
  if (table.wide_rows || rows <= std::numeric_limits<int32_t>::max()) return table;
  for (const KernelTable& other : kTables) {
    if (other.wide_rows) return other;
  }
  throw std::runtime_error(
      "gnnkern: this build lacks the baseline kernels, which matrices of more than "
      "2^31 - 1 columns need");
}

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

int64_t near_table_bytes() { return g_near_table_bytes; }

int usable_threads(int requested) {
  if (requested < 1 || g_forked.load(std::memory_order_relaxed)) return 1;
  return requested;
}

void watch_fork() {
  pthread_atfork(nullptr, nullptr, [] { g_forked = true; });
}

}  // namespace gnnkern
