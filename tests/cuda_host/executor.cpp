#include "executor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"
#include "shared_memory.h"

namespace cuda_host {

namespace {

constexpr int kLanes = 32;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u) {}
  // Below `count`.
  size_t below(size_t count) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<size_t>((state_ >> 11) % count);
  }

 private:
  uint64_t state_;
};

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

struct Fiber {
  Context context;
  std::unique_ptr<Stack> stack;
  Index3 thread;
  State state;
  // At a barrier.
  Vote vote;
  int predicate;
  Place place;
  // In a warp operation.
  Offer* offer;
};

std::string text_of(Index3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

std::string text_of(Place place) {
  std::string file = place.file_name();
  file = file.substr(file.rfind('/') + 1);
  return file + ":" + std::to_string(place.line());
}

bool same_place(Place a, Place b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

class Executor {
 public:
  uint64_t seed = 0;
  SharedMemory shared;

  std::string run(const Launch& launch) {
    launch_ = &launch;
    const Index3 grid = launch.grid, block = launch.block;
    num_threads_ = size_t{block.x} * block.y * block.z;
    const size_t num_blocks = size_t{grid.x} * grid.y * grid.z;
    if (num_threads_ == 0 || num_threads_ > 1024 || block.z > 64) {
      return "a block of " + text_of(block) + " threads is none that a device takes";
    }
    if (num_blocks == 0) return "a grid of size 0";
    if (launch.dynamic_bytes > dynamic_limit(launch.kernel)) {
      return std::to_string(launch.dynamic_bytes) + " bytes of dynamic shared memory were not " +
             "asked for with cudaFuncSetAttribute, or are more than a device has";
    }
    blockDim = {block.x, block.y, block.z};
    gridDim = {grid.x, grid.y, grid.z};
    while (fibers_.size() < num_threads_) fibers_.push_back(std::make_unique<Fiber>());

    Random random(seed);
    std::vector<uint32_t> order(num_blocks);
    for (size_t i = 0; i < num_blocks; ++i) order[i] = static_cast<uint32_t>(i);
    for (size_t i = num_blocks; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    error_.clear();
    for (const uint32_t number : order) {
      blockIdx = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
      run_block(random);
      if (error_.empty() && !shared.is_intact())
        error_ = "shared memory was written beyond its end";
      if (!error_.empty()) {
        return "in block " + text_of({blockIdx.x, blockIdx.y, blockIdx.z}) + ": " + error_;
      }
    }
    return "";
  }

  void allow_dynamic_bytes(const void* kernel, size_t bytes) { limits_[kernel] = bytes; }

  int wait_for_block(Vote vote, int predicate, Place place) {
    Fiber& fiber = *current_;
    fiber.vote = vote;
    fiber.predicate = predicate;
    fiber.place = place;
    fiber.state = State::kAtBarrier;
    ++num_at_barrier_;
    leave();
    return vote_result_;
  }

  void meet_warp(Offer& offer) {
    Fiber& fiber = *current_;
    const size_t first = number_ / kLanes * kLanes;
    const unsigned own = 1u << (number_ % kLanes);
    if (!(offer.mask & own)) {
      fail("thread " + text_of(fiber.thread) + " is not in the mask that it passes at " +
           text_of(offer.place));
    }
    fiber.offer = &offer;
    fiber.state = State::kInWarp;
    if (all_have_come(offer, first)) {
      answer(offer, first);
      for (unsigned rest = offer.mask; rest; rest &= rest - 1) {
        make_ready(first + std::countr_zero(rest));
      }
    }
    leave();
  }

  int lane() const { return static_cast<int>(number_ % kLanes); }

  // Ends the block; never returns to the thread.
  void fail(const std::string& why) {
    if (error_.empty()) error_ = why;
    leave();
  }

 private:
  static void entry();

  size_t dynamic_limit(const void* kernel) const {
    const auto found = limits_.find(kernel);
    const size_t asked = found == limits_.end() ? kStaticBytes : found->second;
    return std::min(std::max(asked, kStaticBytes), kDynamicBytes);
  }

  void make_ready(size_t number) {
    fibers_[number]->state = State::kReady;
    ready_.push_back(static_cast<uint32_t>(number));
  }

  // From a thread to `run_block`.
  void leave() { switch_context(current_->context, main_); }

  void run_block(Random& random) {
    shared.begin(launch_->dynamic_bytes);
    ready_.clear();
    num_at_barrier_ = num_ended_ = 0;
    const Index3 block = launch_->block;
    for (size_t i = 0; i < num_threads_; ++i) {
      const auto number = static_cast<unsigned>(i);
      Fiber& fiber = *fibers_[i];
      fiber.thread = {number % block.x, number / block.x % block.y, number / block.x / block.y};
      // Of a thread that an error has left behind.
      if (fiber.stack) stacks_.push_back(std::move(fiber.stack));
      make_ready(i);
    }
    while (error_.empty() && num_ended_ < num_threads_) {
      if (!ready_.empty()) {
        const size_t pick = random.below(ready_.size());
        const uint32_t number = ready_[pick];
        ready_[pick] = ready_.back();
        ready_.pop_back();
        resume(number);
      } else if (num_at_barrier_ == num_threads_) {
        open_barrier();
      } else {
        explain_standstill();
      }
    }
  }

  void resume(size_t number) {
    Fiber& fiber = *fibers_[number];
    if (!fiber.stack) {
      if (stacks_.empty()) stacks_.push_back(std::make_unique<Stack>());
      fiber.stack = std::move(stacks_.back());
      stacks_.pop_back();
      start_context(fiber.context, *fiber.stack, entry);
    }
    number_ = number;
    current_ = &fiber;
    threadIdx = {fiber.thread.x, fiber.thread.y, fiber.thread.z};
    switch_context(main_, fiber.context);
    if (fiber.state == State::kEnded) {
      ++num_ended_;
      // The stack is warm in the cache: the next thread takes it.
      stacks_.push_back(std::move(fiber.stack));
    }
  }

  void open_barrier() {
    const Fiber& first = *fibers_[0];
    int count = 0;
    for (size_t i = 0; i < num_threads_; ++i) {
      const Fiber& fiber = *fibers_[i];
      if (!same_place(fiber.place, first.place) || fiber.vote != first.vote) {
        error_ = "threads wait at different barriers: " + text_of(first.thread) + " at " +
                 text_of(first.place) + ", " + text_of(fiber.thread) + " at " +
                 text_of(fiber.place);
        return;
      }
      count += fiber.predicate != 0;
    }
    vote_result_ = first.vote == Vote::kAnd  ? count == static_cast<int>(num_threads_)
                   : first.vote == Vote::kOr ? count > 0
                                             : count;
    num_at_barrier_ = 0;
    for (size_t i = 0; i < num_threads_; ++i) make_ready(i);
  }

  // Nobody can go on.
  void explain_standstill() {
    error_ = "not all threads reach a barrier:";
    size_t told = 0, ended = 0;
    Place last;
    for (size_t i = 0; i < num_threads_; ++i) {
      const Fiber& fiber = *fibers_[i];
      ended += fiber.state == State::kEnded;
      if (fiber.state == State::kEnded || told >= 4) continue;
      const bool in_warp = fiber.state == State::kInWarp;
      const Place place = in_warp ? fiber.offer->place : fiber.place;
      if (told > 0 && same_place(place, last)) continue;
      last = place;
      ++told;
      error_ += " thread " + text_of(fiber.thread) + " waits for its " +
                (in_warp ? "warp" : "block") + " at " + text_of(place) + ";";
    }
    error_ +=
        " " + std::to_string(ended) + " of " + std::to_string(num_threads_) + " threads have ended";
  }

  bool all_have_come(const Offer& offer, size_t first) {
    const size_t lanes = std::min<size_t>(num_threads_ - first, kLanes);
    if (lanes < kLanes && offer.mask >> lanes) {
      fail("the mask at " + text_of(offer.place) + " names lanes that the block does not have");
    }
    for (unsigned rest = offer.mask; rest; rest &= rest - 1) {
      const Fiber& other = *fibers_[first + std::countr_zero(rest)];
      if (other.state != State::kInWarp || other.offer->mask != offer.mask) return false;
      if (other.offer->meeting != offer.meeting || other.offer->bytes != offer.bytes ||
          !same_place(other.offer->place, offer.place)) {
        fail("lanes of one warp wait at different operations: " + text_of(offer.place) + " and " +
             text_of(other.offer->place));
      }
    }
    return true;
  }

  // Gives every lane of the mask its result.
  void answer(const Offer& offer, size_t first) {
    const auto at = [&](int lane) -> Offer& { return *fibers_[first + lane]->offer; };
    uint64_t combined = at(std::countr_zero(offer.mask)).value;
    unsigned ballot = 0;
    for (unsigned rest = offer.mask; rest; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      const uint64_t value = at(lane).value;
      if (value) ballot |= 1u << lane;
      if (lane != std::countr_zero(offer.mask)) combined = combine(offer.meeting, combined, value);
    }
    for (unsigned rest = offer.mask; rest; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      Offer& own = at(lane);
      if (offer.meeting == Meeting::kShuffle) {
        if (!(offer.mask >> own.source & 1)) {
          fail("lane " + std::to_string(lane) + " reads lane " + std::to_string(own.source) +
               ", which the mask does not name, at " + text_of(offer.place));
        }
        own.result = at(own.source).value;
      } else if (offer.meeting == Meeting::kMatch) {
        own.result = 0;
        for (unsigned others = offer.mask; others; others &= others - 1) {
          const int other = std::countr_zero(others);
          if (at(other).value == own.value) own.result |= uint64_t{1} << other;
        }
      } else {
        own.result = offer.meeting == Meeting::kBallot ? ballot : combined;
      }
    }
  }

  static uint64_t combine(Meeting meeting, uint64_t left, uint64_t right) {
    const auto a = static_cast<uint32_t>(left), b = static_cast<uint32_t>(right);
    const auto signed_a = static_cast<int32_t>(a), signed_b = static_cast<int32_t>(b);
    switch (meeting) {
      case Meeting::kAdd:
        return a + b;
      case Meeting::kMin:
        return std::min(a, b);
      case Meeting::kMax:
        return std::max(a, b);
      case Meeting::kSignedMin:
        return static_cast<uint32_t>(std::min(signed_a, signed_b));
      case Meeting::kSignedMax:
        return static_cast<uint32_t>(std::max(signed_a, signed_b));
      case Meeting::kAnd:
        return a & b;
      case Meeting::kOr:
        return a | b;
      case Meeting::kXor:
        return a ^ b;
      default:
        return 0;
    }
  }

  const Launch* launch_ = nullptr;
  size_t num_threads_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<uint32_t> ready_;
  std::unordered_map<const void*, size_t> limits_;
  size_t num_at_barrier_ = 0;
  size_t num_ended_ = 0;
  int vote_result_ = 0;
  std::string error_;
  Context main_;
  // The running thread.
  Fiber* current_ = nullptr;
  size_t number_ = 0;
};

Executor executor;
std::mutex one_launch_at_a_time;

void Executor::entry() {
  executor.launch_->invoke(executor.launch_->context);
  executor.current_->state = State::kEnded;
  executor.leave();
}

}  // namespace

std::string run(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  return executor.run(launch);
}

void allow_dynamic_bytes(const void* kernel, size_t bytes) {
  executor.allow_dynamic_bytes(kernel, bytes);
}
void set_seed(uint64_t seed) { executor.seed = seed; }
void set_poison(bool poison) { executor.shared.poison = poison; }
int wait_for_block(Vote vote, int predicate, Place place) {
  return executor.wait_for_block(vote, predicate, place);
}
void meet_warp(Offer& offer) { executor.meet_warp(offer); }
int lane_of_warp() { return executor.lane(); }
void* dynamic_shared_bytes() { return executor.shared.dynamic_bytes(); }

void* static_shared(const void* key, size_t bytes, size_t alignment) {
  void* found = executor.shared.find(key, bytes, alignment);
  if (!found) executor.fail("more than 48 KB of static shared memory");
  return found;
}

}  // namespace cuda_host
