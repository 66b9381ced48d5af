#include "runtime.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <iterator>
#include <limits>
#include <stdexcept>

#include "parallel.h"

namespace gnnkern {

namespace {

#define GNNKERN_TABLE(isa, wide_rows, all_types) \
  {#isa,                                         \
   wide_rows,                                    \
   all_types,                                    \
   isa::row_reduce,                              \
   isa::message_reduce,                          \
   isa::select_backward,                         \
   isa::sddmm,                                   \
   isa::segment_softmax,                         \
   isa::segment_gather,                          \
   isa::segment_matmul,                          \
   isa::scatter_std,                             \
   isa::scale_by_group,                          \
   isa::gat_forward,                             \
   isa::gat_backward,                            \
   isa::gat_pack,                                \
   isa::gatv2_forward,                           \
   isa::gatv2_backward,                          \
   isa::multi_reduce,                            \
   isa::multi_reduce_pack,                       \
   isa::multi_reduce_backward,                   \
   isa::dot_forward,                             \
   isa::dot_backward,                            \
   isa::dot_backward_query}

// As dispatch.h has it.
#if defined(GNNKERN_HAVE_AVX2)
constexpr bool kAvx512HasAllTypes = false;
#else
constexpr bool kAvx512HasAllTypes = true;
#endif

// Best first.
const KernelTable kTables[] = {
#if defined(GNNKERN_HAVE_AVX512)
    GNNKERN_TABLE(avx512, false, kAvx512HasAllTypes),
#endif
#if defined(GNNKERN_HAVE_AVX2)
    GNNKERN_TABLE(avx2, false, true),
#endif
#if defined(GNNKERN_HAVE_BASELINE)
    GNNKERN_TABLE(baseline, true, true),
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

namespace {

// The table in use or the best below it that will do; null where there is none.
const KernelTable* find_table(bool wide_rows, bool all_types) {
  for (const KernelTable* table = g_table.load(std::memory_order_relaxed);
       table != std::end(kTables); ++table) {
    if ((table->wide_rows || !wide_rows) && (table->all_types || !all_types)) return table;
  }
  return nullptr;
}

const KernelTable& kernels_for(const Csr& csr, bool all_types) {
  // Rows of segments are their edges.
  const int64_t rows = csr.indices ? csr.num_cols : csr.num_edges;
  const KernelTable* table = find_table(rows > std::numeric_limits<int32_t>::max(), all_types);
  if (table) return *table;
  throw std::runtime_error(
      "gnnkern: this build lacks the baseline kernels, which matrices of more than "
      "2^31 - 1 columns need");
}

}  // namespace

const KernelTable& kernels() { return *g_table.load(std::memory_order_relaxed); }

const KernelTable& kernels(ScalarType type) { return *find_table(false, !is_model_type(type)); }

const KernelTable& kernels(const Csr& csr) { return kernels_for(csr, false); }

const KernelTable& kernels(const Csr& csr, ScalarType type) {
  return kernels_for(csr, !is_model_type(type));
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
