// Activations as the matmul takes them: int8, in blocks of 256.
#pragma once
#include "kernels.h"

namespace corral::CORRAL_ISA {

// 256 activations of one token. `d` scales the int8 of each 32; `ds` = d * sum(q) meets the minimum of affine formats,
// `ds_first` is that of the first 16 only; the negated integer sums meet the offset of symmetric ones.
struct alignas(64) ActBlock {
    int8_t q[kChunk];
    float d[8];
    float ds[8], ds_first[8];
    int32_t minus_sum32[8];
    int32_t minus_sum16[16];
#if defined(CORRAL_WHOLE_CHUNKS)
    // The same with one scale for all 256. What goes with many tokens lies together.
    int8_t whole[kChunk];
    float whole_d;
    int16_t whole_sum32[8], whole_sum16[16];  // for minima, taken in pairs
    int32_t whole_minus_sum32[8], whole_minus_sum16[16];
#endif
};

#if defined(CORRAL_WHOLE_CHUNKS)
constexpr size_t kActReadBytes = sizeof(ActBlock) - offsetof(ActBlock, whole);
#else
constexpr size_t kActReadBytes = sizeof(ActBlock);
#endif

constexpr float kLeastActivation = 1e-30f;

// Int8 with one scale for 32 numbers: d = max|x| / 127, q = round(x / d). n is a multiple of 32.
// Numbers so small that 1 / d would overflow are zeros.
static void quantize_groups(const float* x, int n, ActBlock* out, size_t stride) {
    for (int i = 0; i < n; i += kActGroup) {
        ActBlock& block = out[static_cast<size_t>(i / kChunk) * stride];
        const int at = i % kChunk, j = at / kActGroup;
        const F16 a = fload(x + i), b = fload(x + i + 16);
        const float most = fmost(fmax(fabs16(a), fabs16(b)));
        const float d = most < kLeastActivation ? 0.0f : most / 127.0f, inverse = d == 0.0f ? 0.0f : 1.0f / d;
        fstore_rounded_i8(block.q + at, a * fset(inverse));
        fstore_rounded_i8(block.q + at + 16, b * fset(inverse));
        const int32_t first = sum_i8(block.q + at), second = sum_i8(block.q + at + 16);
        block.d[j] = d;
        block.ds[j] = d * static_cast<float>(first + second);
        block.ds_first[j] = d * static_cast<float>(first);
        block.minus_sum32[j] = -(first + second);
        block.minus_sum16[2 * j] = -first;
        block.minus_sum16[2 * j + 1] = -second;
    }
}

#if defined(CORRAL_WHOLE_CHUNKS)
// Int8 with one scale for a chunk. n is a multiple of 32.
static void quantize_chunks(const float* x, int n, ActBlock* out, size_t stride) {
    for (int start = 0; start < n; start += kChunk, out += stride) {
        const int count = n - start < kChunk ? n - start : kChunk;
        F16 largest = fzero();
        for (int i = 0; i < count; i += 16) largest = fmax(largest, fabs16(fload(x + start + i)));
        const float most = fmost(largest), d = most < kLeastActivation ? 0.0f : most / 127.0f;
        const F16 inverse = fset(d == 0.0f ? 0.0f : 1.0f / d);
        out->whole_d = d;
        for (int i = 0; i < count; i += 16) {
            fstore_rounded_i8(out->whole + i, fload(x + start + i) * inverse);
            const int32_t sum = sum_i8(out->whole + i);
            out->whole_minus_sum16[i / 16] = -sum;
            out->whole_sum16[i / 16] = static_cast<int16_t>(sum);
        }
        for (int j = 0; j < count / 32; j++) {
            out->whole_minus_sum32[j] = out->whole_minus_sum16[2 * j] + out->whole_minus_sum16[2 * j + 1];
            out->whole_sum32[j] = static_cast<int16_t>(-out->whole_minus_sum32[j]);
        }
    }
}
#endif

static void quantize_row(const float* x, int n, void* out, size_t stride) {
    quantize_groups(x, n, static_cast<ActBlock*>(out), stride);
#if defined(CORRAL_WHOLE_CHUNKS)
    quantize_chunks(x, n, static_cast<ActBlock*>(out), stride);
#endif
}

}  // namespace corral::CORRAL_ISA
