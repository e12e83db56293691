// F32, F16, BF16: plain numbers. Packed: column by column, 16 rows side by side, at the file's width.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

template <int Type, int Bytes>
struct PlainFormat {
    static constexpr int kType = Type, kBlockWeights = 1, kBlockBytes = Bytes;

    static size_t chunk_bytes(int k) { return round64(static_cast<size_t>(k) * 16 * Bytes); }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        for (int c = 0; c < k; c++)
            for (int r = 0; r < 16; r++)
                if (rows[r]) memcpy(out + (16 * c + r) * Bytes, rows[r] + c * Bytes, Bytes);
    }
};

struct F32Format : PlainFormat<0, 4> {
    static void dequantize(const uint8_t* p, float* out) { memcpy(out, p, 4); }
    CORRAL_INLINE F16 load(const uint8_t* p) { return fload(reinterpret_cast<const float*>(p)); }
};

struct F16Format : PlainFormat<1, 2> {
    static void dequantize(const uint8_t* p, float* out) { *out = half_to_float(read_u16(p)); }
    CORRAL_INLINE F16 load(const uint8_t* p) { return fload_half(reinterpret_cast<const uint16_t*>(p)); }
};

struct BF16Format : PlainFormat<30, 2> {
    static void dequantize(const uint8_t* p, float* out) { *out = bf16_to_float(read_u16(p)); }
    CORRAL_INLINE F16 load(const uint8_t* p) { return fload_bf16(reinterpret_cast<const uint16_t*>(p)); }
};

}  // namespace corral::CORRAL_ISA
