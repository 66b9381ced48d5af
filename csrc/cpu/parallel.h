// Threads: the pool is the one torch uses, and a forked child never touches it.
#pragma once

#include <omp.h>

#include <cstdint>

namespace gnnkern {

// The number of threads to really use: 1 in a child of fork, whose copy of the pool has no threads
// and would be waited for without end.
int usable_threads(int requested);

// The size of a table up to which the processor's own reordering hides the latency of its rows.
int64_t near_table_bytes();

// Calls body(task, thread) for every task, handing tasks out in order as threads become free.
template <class Body>
static inline void parallel_tasks(int64_t num_tasks, int threads, const Body& body) {
  if (threads <= 1 || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < num_tasks; ++task) body(task, thread);
  }
}

}  // namespace gnnkern
