// Tsourakakis et al., "FENNEL: streaming graph partitioning for massive scale graphs", 2014, with
// passes repeated as in Nishimura and Ugander, "Restreaming graph partitioning", 2013.

#include "fennel.h"

#include <cmath>
#include <vector>

namespace gnnkern {

namespace {

// The part of the least load, kept while loads change: the winners of a knockout tournament.
class Loads {
 public:
  explicit Loads(int64_t num_parts) : leaves_(1) {
    while (leaves_ < num_parts) leaves_ *= 2;
    load_.assign(leaves_, INFINITY);
    for (int64_t part = 0; part < num_parts; ++part) load_[part] = 0.0;
    winner_.resize(2 * leaves_);
    for (int64_t leaf = 0; leaf < leaves_; ++leaf) winner_[leaves_ + leaf] = leaf;
    for (int64_t node = leaves_ - 1; node > 0; --node) play(node);
  }

  void add(int64_t part, double weight) {
    load_[part] += weight;
    for (int64_t node = (leaves_ + part) / 2; node > 0; node /= 2) play(node);
  }

  double of(int64_t part) const { return load_[part]; }
  int64_t lightest() const { return winner_[1]; }

 private:
  void play(int64_t node) {
    const int64_t left = winner_[2 * node];
    const int64_t right = winner_[2 * node + 1];
    winner_[node] = load_[right] < load_[left] ? right : left;
  }

  int64_t leaves_;
  std::vector<double> load_;
  std::vector<int64_t> winner_;
};

// How many neighbours of one node each part has; only parts that were seen are cleared.
class Neighbours {
 public:
  explicit Neighbours(int64_t num_parts) : count_(num_parts, 0) {}

  template <typename index_t>
  void see(const index_t* indptr, const index_t* indices, int64_t node, const int32_t* part) {
    for (int64_t edge = indptr[node]; edge < static_cast<int64_t>(indptr[node + 1]); ++edge) {
      const int64_t other = indices[edge];
      if (other == node || part[other] < 0) continue;
      if (count_[part[other]]++ == 0) seen_.push_back(part[other]);
    }
  }

  void forget() {
    for (const int32_t part : seen_) count_[part] = 0;
    seen_.clear();
  }

  const std::vector<int32_t>& seen() const { return seen_; }
  int64_t of(int64_t part) const { return count_[part]; }

 private:
  std::vector<int64_t> count_;
  std::vector<int32_t> seen_;
};

template <typename index_t>
int64_t run_pass(const FennelArgs& args) {
  const auto* indptr = static_cast<const index_t*>(args.indptr);
  const auto* indices = static_cast<const index_t*>(args.indices);
  const auto* rev_indptr = static_cast<const index_t*>(args.rev_indptr);
  const auto* rev_indices = static_cast<const index_t*>(args.rev_indices);
  const auto weight = [&](int64_t node) {
    return args.weight ? static_cast<double>(args.weight[node]) : 1.0;
  };
  Loads loads(args.num_parts);
  for (int64_t node = 0; node < args.num_nodes; ++node) {
    if (args.part[node] >= 0) loads.add(args.part[node], weight(node));
  }
  Neighbours neighbours(args.num_parts);
  int64_t moved = 0;
  for (int64_t step = 0; step < args.num_nodes; ++step) {
    const int64_t node = step + args.first_node < args.num_nodes
                             ? step + args.first_node
                             : step + args.first_node - args.num_nodes;
    const int32_t old = args.part[node];
    const double own = weight(node);
    if (old >= 0) loads.add(old, -own);
    neighbours.see(indptr, indices, node, args.part);
    if (rev_indptr) neighbours.see(rev_indptr, rev_indices, node, args.part);

    const auto gain = [&](int64_t part) {
      const double load = loads.of(part) > 0.0 ? loads.of(part) : 0.0;
      return static_cast<double>(neighbours.of(part)) - args.price * own * std::sqrt(load);
    };
    // Of the parts without a neighbour, the lightest is the best; it always has room.
    int64_t best = loads.lightest();
    double best_gain = gain(best);
    for (const int32_t part : neighbours.seen()) {
      if (loads.of(part) + own > args.capacity) continue;
      const double value = gain(part);
      const bool wins_tie = part == old || (best != old && part < best);
      if (value > best_gain || (value == best_gain && wins_tie)) {
        best = part;
        best_gain = value;
      }
    }
    neighbours.forget();
    args.part[node] = static_cast<int32_t>(best);
    loads.add(best, own);
    moved += best != old;
  }
  return moved;
}

uint64_t mixed(uint64_t from, uint64_t to) {
  uint64_t bits = from * 0x9e3779b97f4a7c15u + to;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

}  // namespace

int64_t fennel_pass(const FennelArgs& args) {
  int64_t moved = 0;
  dispatch_index(args.index_type, [&]<typename index_t>() { moved = run_pass<index_t>(args); });
  return moved;
}

bool is_symmetric(IndexType index_type, const void* indptr, const void* indices,
                  int64_t num_nodes) {
  uint64_t there = 0;
  uint64_t back = 0;
  dispatch_index(index_type, [&]<typename index_t>() {
    const auto* begin = static_cast<const index_t*>(indptr);
    const auto* source = static_cast<const index_t*>(indices);
    for (int64_t node = 0; node < num_nodes; ++node) {
      for (int64_t edge = begin[node]; edge < static_cast<int64_t>(begin[node + 1]); ++edge) {
        const int64_t other = source[edge];
        if (other == node) continue;
        there += mixed(other, node);
        back += mixed(node, other);
      }
    }
  });
  return there == back;
}

}  // namespace gnnkern
