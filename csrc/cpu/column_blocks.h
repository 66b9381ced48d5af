// Whether a row sum goes over blocks of columns, one after the other.
//
// A matrix that reads every row of x many times is bound by the cache that x lies in. A block of
// the columns of x, packed, lies in a nearer one: the copy moves each element once, and the sum
// many times. The order in which a row's messages are added stays the same, and so do its bits.
#pragma once

#include <string>

#include "kernels.h"

namespace gnnkern {

// The columns of a block; 0: rows are reduced whole.
int64_t block_columns(const RowReduceArgs& args);

// Whether blocks are worth the copy where the last level of the caches has so many bytes.
bool is_much_read(int64_t rows, int64_t edges, int64_t row_bytes, int64_t last_level_bytes);

// Bytes of the packed x, and of the weights in the matrix's order.
int64_t packed_bytes(const RowReduceArgs& args);
int64_t sorted_weight_bytes(const RowReduceArgs& args);

// "auto" decides by the sizes, "always" and "never" are for tests and measurements. Throws
// std::invalid_argument for any other word.
void set_column_blocks(const std::string& mode);

}  // namespace gnnkern
