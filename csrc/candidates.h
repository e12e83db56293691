// The largest logits of a row, found with the maxima of its blocks (csrc/logits.h). The same on every ISA: nothing is rounded here.
#pragma once
#include <cstddef>
#include <cstdint>

namespace corral {

// The k largest of row [n], 1 <= k <= n, by falling value, then rising id.
void top_logits(const float* row, int n, const float* maxima, int k, int32_t* ids, float* values);

// How many are `bound` or more.
int64_t count_logits(const float* row, int n, const float* maxima, float bound);

// Make the maxima right again after these logits have changed.
void refresh_maxima(const float* row, int n, const int32_t* ids, size_t count, float* maxima);

}  // namespace corral
