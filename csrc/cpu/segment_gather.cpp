// out[e] = x[r] for every edge e of row r: each row repeated as often as its segment is long.

#include "items.h"

namespace gnnkern::GNNKERN_ISA {

void segment_gather(const SegmentGatherArgs& args) {
  const auto* x = static_cast<const char*>(args.x);
  auto* out = static_cast<char*>(args.out);
  const auto nothing = [](const PlanItem&, int) { return 0; };
  for_each_row_part(args.csr, args.threads, nothing, [&](int, const RowPart& part) {
    for (int64_t edge = part.begin; edge < part.end; ++edge) {
      copy_row(out + edge * args.row_bytes, x + part.row * args.row_bytes, args.row_bytes);
    }
  });
}

}  // namespace gnnkern::GNNKERN_ISA
