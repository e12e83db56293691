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
};

constexpr float kLeastActivation = 1e-30f;

// Int8 with one scale for 32 numbers: d = max|x| / 127, q = round(x / d). n is a multiple of 32.
// Numbers so small that 1 / d would overflow are zeros.
static void quantize_groups(const float* x, int n, void* blocks, size_t stride) {
    auto* out = static_cast<ActBlock*>(blocks);
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
// 256 activations of one token with one scale, and sums of all, of 32 and of 16 of them, for minima and offsets.
struct alignas(64) WholeBlock {
    int8_t q[kChunk];
    float d;
    int32_t sum;
    int16_t sum32[8], sum16[16];
};

// Int8 with one scale for a chunk. n is a multiple of 256.
static void quantize_chunks(const float* x, int n, void* blocks, size_t stride) {
    auto* out = static_cast<WholeBlock*>(blocks);
    for (int start = 0; start < n; start += kChunk, out += stride) {
        F16 largest = fzero();
        for (int i = 0; i < kChunk; i += 16) largest = fmax(largest, fabs16(fload(x + start + i)));
        const float most = fmost(largest), d = most < kLeastActivation ? 0.0f : most / 127.0f;
        const F16 inverse = fset(d == 0.0f ? 0.0f : 1.0f / d);
        out->d = d;
        for (int i = 0; i < kChunk; i += 16) {
            fstore_rounded_i8(out->q + i, fload(x + start + i) * inverse);
            out->sum16[i / 16] = static_cast<int16_t>(sum_i8(out->q + i));
        }
        out->sum = 0;
        for (int j = 0; j < 8; j++) {
            out->sum32[j] = static_cast<int16_t>(out->sum16[2 * j] + out->sum16[2 * j + 1]);
            out->sum += out->sum32[j];
        }
    }
}
#endif

}  // namespace corral::CORRAL_ISA
