// Shared memory of the block that runs: filled with NaN, and fenced behind every object.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace cuda_host {

constexpr size_t kStaticBytes = 48 * 1024;
constexpr size_t kDynamicBytes = 227 * 1024;
// Beyond each object in shared memory, a pattern that nobody may change.
constexpr size_t kFenceBytes = 64;
constexpr unsigned char kFence = 0xA5;
constexpr unsigned char kPoison = 0xFF;

class SharedMemory {
 public:
  bool poison = true;

  void begin(size_t dynamic_bytes) {
    used_ = 0;
    objects_.clear();
    dynamic_ = take(nullptr, dynamic_bytes, 16);
    static_bytes_ = 0;
  }

  void* dynamic_bytes() { return dynamic_; }

  // Null where the block has no room left.
  void* find(const void* key, size_t bytes, size_t alignment) {
    for (const Object& object : objects_) {
      if (object.key == key) return object.memory;
    }
    static_bytes_ += bytes;
    return static_bytes_ > kStaticBytes ? nullptr : take(key, bytes, alignment);
  }

  bool is_intact() const {
    return std::all_of(objects_.begin(), objects_.end(), [](const Object& object) {
      const unsigned char* fence = object.memory + object.bytes;
      return std::all_of(fence, fence + kFenceBytes, [](unsigned char c) { return c == kFence; });
    });
  }

 private:
  struct Object {
    const void* key;
    unsigned char* memory;
    size_t bytes;
  };

  void* take(const void* key, size_t bytes, size_t alignment) {
    used_ = (used_ + alignment - 1) / alignment * alignment;
    unsigned char* memory = memory_ + used_;
    if (poison) std::memset(memory, kPoison, bytes);
    std::memset(memory + bytes, kFence, kFenceBytes);
    used_ += bytes + kFenceBytes;
    objects_.push_back({key, memory, bytes});
    return memory;
  }

  // Room for fences around the smallest objects.
  alignas(128) unsigned char memory_[kDynamicBytes + 32 * kStaticBytes];
  size_t used_ = 0;
  size_t static_bytes_ = 0;
  void* dynamic_ = nullptr;
  std::vector<Object> objects_;
};

}  // namespace cuda_host
