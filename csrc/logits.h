// Passes over a row of logits [V], for the sampler. Their twins are in corral/sampling/kernels.py.
//
// A block is 64 logits; the largest of each spares the passes after the first from looking at most of them. Sums are made in float
// within a block, of 16 lanes in the order of fsum, and in double over the blocks: the same on every ISA.
#pragma once
#include "elementwise.h"

namespace corral::CORRAL_ISA {

// 16 logits from i on; beyond the end, `fill`
CORRAL_INLINE F16 logits16(const float* row, int i, int n, float fill) {
    return n - i >= 16 ? fload(row + i) : fkeep(fload_some(row + i, n - i), 0, n - i, fill);
}
CORRAL_INLINE int block_end(int start, int n) { return n - start < kLogitBlock ? n : start + kLogitBlock; }

// maxima [ceil(n / 64)]: the largest of each block. Whether all are finite; if not, the maxima mean nothing.
static bool scan_logits(const float* row, int n, float* maxima) {
    F16 odd = fzero();  // x - x is 0 for a finite number, and NaN for any other
    for (int start = 0; start < n; start += kLogitBlock) {
        const int end = block_end(start, n);
        F16 most = fset(row[start]);
        for (int i = start; i < end; i += 16) {
            const F16 x = logits16(row, i, end, row[start]);
            most = fmax(x, most);
            odd = odd + (x - x);
        }
        maxima[start / kLogitBlock] = fmost(most);
    }
    return fsum(odd) == 0.0f;
}

// out [n]: the row with -inf where bit i % 32 of allowed[i / 32] is 0; maxima as above
static void mask_logits(const float* row, const uint32_t* allowed, int n, float* out, float* maxima) {
    for (int start = 0; start < n; start += kLogitBlock) {
        const int end = block_end(start, n);
        for (int i = start; i < end; i += 32) {
            const uint32_t bits = allowed[i / 32];
            const int count = end - i < 32 ? end - i : 32;
            for (int j = 0; j < count; j++) out[i + j] = bits >> j & 1 ? row[i + j] : -__builtin_inff();
        }
        F16 most = fset(out[start]);
        for (int i = start; i < end; i += 16) most = fmax(logits16(out, i, end, out[start]), most);
        maxima[start / kLogitBlock] = fmost(most);
    }
}

// With d = (largest - x) * scale of each logit: the sum of e^-d, and if asked that of d e^-d
static double exp_sum_logits(const float* row, int n, float largest, float scale, double* weighted) {
    double sum = 0, products = 0;
    for (int start = 0; start < n; start += kLogitBlock) {
        const int end = block_end(start, n);
        F16 terms = fzero(), weights = fzero();
        for (int i = start; i < end; i += 16) {
            // products first: of the fill and of -inf they are -inf, which gives 0
            const F16 x = (logits16(row, i, end, -__builtin_inff()) - fset(largest)) * fset(scale);
            const F16 term = exp16(x);
            terms = terms + term;
            if (weighted) weights = fnma(term, fmax(x, fset(-88.0f)), weights);
        }
        sum += fsum(terms);
        if (weighted) products += fsum(weights);
    }
    if (weighted) *weighted = products;
    return sum;
}

constexpr float kLeastLogit = -3.4028234663852886e38f;  // every logit but -inf is this or more

// Of the logits that are not -inf: how many, and the sum of (x - shift)^power for power 1 or 2
static double moment_logits(const float* row, int n, float shift, int power, int64_t* count) {
    double sum = 0;
    int64_t finite = 0;
    for (int start = 0; start < n; start += kLogitBlock) {
        const int end = block_end(start, n);
        F16 part = fzero(), ones = fzero();
        for (int i = start; i < end; i += 16) {
            const F16 x = logits16(row, i, end, -__builtin_inff()), least = fset(kLeastLogit);
            const F16 d = fselect_lt(x, least, fzero(), x - fset(shift));
            part = power == 1 ? part + d : fma(d, d, part);
            ones = ones + fselect_lt(x, least, fzero(), fset(1.0f));
        }
        sum += fsum(part);
        finite += static_cast<int64_t>(fsum(ones));
    }
    *count = finite;
    return sum;
}

}  // namespace corral::CORRAL_ISA
