// A second stack, and the switch between two: by hand on x86-64, since swapcontext asks the system
// for the signal mask each time, and by swapcontext elsewhere.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_host {

// Memory of a stack, below which a page that nobody may touch.
class Stack {
 public:
  static constexpr size_t kBytes = 128 * 1024;

  Stack() {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory_, static_cast<size_t>(getpagesize()), PROT_NONE);
  }
  ~Stack() { munmap(memory_, kBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  char* begin() const { return static_cast<char*>(memory_); }
  char* end() const { return begin() + kBytes; }

 private:
  void* memory_;
};

#if defined(__x86_64__)

struct Context {
  void* stack_pointer;
};

// What a function has to keep goes to the old stack and comes from the new one.
extern "C" void cuda_host_switch(void** from, void* to);
asm(R"(
  .text
  .globl cuda_host_switch
  .hidden cuda_host_switch
  .type cuda_host_switch, @function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_host_switch, . - cuda_host_switch
)");

inline void switch_context(Context& from, Context& to) {
  cuda_host_switch(&from.stack_pointer, to.stack_pointer);
}

// The first switch to it calls `entry`, which must not return.
inline void start_context(Context& context, const Stack& stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack.end());
  // Where `entry` would return to, `entry`, six registers. A function finds its return address 8
  // bytes off a multiple of 16.
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}

#else

struct Context {
  ucontext_t context;
};

inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

inline void start_context(Context& context, const Stack& stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack.begin();
  context.context.uc_stack.ss_size = Stack::kBytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}

#endif

}  // namespace cuda_host
