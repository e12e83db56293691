// Q4_K: 256 weights in 8 sub-blocks of 32, w = d * scale * q - dmin * minimum.
// File: d f16, dmin f16; 12 bytes of 6-bit scales and minima; 128 bytes, in each 32 of which the low nibbles are one sub-block
// and the high nibbles the next. Packed chunk: nibbles; scales, then minima, as bytes; d; dmin.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

// The j-th 6-bit scale and minimum of the 12 bytes that Q4_K and Q5_K keep them in.
CORRAL_INLINE void scale_and_minimum(const uint8_t* p, int j, uint8_t* scale, uint8_t* minimum) {
    if (j < 4) {
        *scale = p[j] & 63;
        *minimum = p[j + 4] & 63;
    } else {
        *scale = static_cast<uint8_t>((p[j + 4] & 15) | (p[j - 4] >> 6) << 4);
        *minimum = static_cast<uint8_t>((p[j + 4] >> 4) | (p[j] >> 6) << 4);
    }
}

// Packed: eight lines of 16 scales, as many of minima; d; dmin. 320 bytes of 16 rows.
CORRAL_INLINE void pack_scales_and_minima(const uint8_t* block, int r, uint8_t* out) {
    uint8_t *minima = out + 128, *halves = minima + 128;
    for (int j = 0; j < 8; j++) scale_and_minimum(block + 4, j, out + 16 * j + r, minima + 16 * j + r);
    memcpy(halves + 2 * r, block, 2);
    memcpy(halves + 32 + 2 * r, block + 2, 2);
}

template <int R>
CORRAL_INLINE void unpack_scales_and_minima(const uint8_t* p, Panel<R>& panel, int r) {
    const uint8_t *minima = p + 128, *halves = minima + 128;
    const F16 d = fload_half(reinterpret_cast<const uint16_t*>(halves));
    const F16 dmin = fload_half(reinterpret_cast<const uint16_t*>(halves + 32));
    for (int j = 0; j < 8; j++) {
        fstore(panel.s[j][r], d * fload_u8(p + 16 * j));
        fstore(panel.m[j][r], dmin * fload_u8(minima + 16 * j));
    }
}

template <int R>
CORRAL_INLINE void whole_scales_and_minima(const uint8_t* p, WholeScales<R>& scales, int r) {
    const uint8_t *minima = p + 128, *halves = minima + 128;
    for (int j = 0; j < 8; j++) widen_16(p + 16 * j, scales.s[j][r]);
    for (int i = 0; i < 4; i++) pair_16(minima + 32 * i, minima + 32 * i + 16, scales.m[i][r]);
    fstore(scales.d[r], fload_half(reinterpret_cast<const uint16_t*>(halves)));
    fstore(scales.dmin[r], fload_half(reinterpret_cast<const uint16_t*>(halves + 32)));
}

// A block's 8 scales and minima over the 256 numbers q
CORRAL_INLINE void dequantize_affine(const uint8_t* block, const uint8_t* q, float* out) {
    const float d = half_to_float(read_u16(block)), dmin = half_to_float(read_u16(block + 2));
    for (int j = 0; j < 8; j++) {
        uint8_t scale, minimum;
        scale_and_minimum(block + 4, j, &scale, &minimum);
        const float s = d * scale, m = dmin * minimum;
        for (int i = 32 * j; i < 32 * j + 32; i++) out[i] = s * static_cast<float>(q[i]) - m;
    }
}

struct Q4_K {
    static constexpr int kType = 12, kBlockWeights = 256, kBlockBytes = 144, kSub = 32, kOffsetLog2 = -1;
    static constexpr int kBits = 4;
    static constexpr bool kMinimum = true;

    static size_t chunk_bytes(int) { return 2048 + 256 + 64; }

    static void bytes(const uint8_t* nibbles, uint8_t* q) {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 32; j++) {
                q[64 * i + j] = nibbles[32 * i + j] & 15;
                q[64 * i + 32 + j] = nibbles[32 * i + j] >> 4;
            }
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        bytes(block + 16, q);
        dequantize_affine(block, q, out);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r] + 16, q[r]);
            pack_scales_and_minima(rows[r], r, out + 2048);
        }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r);
        unpack_scales_and_minima(p + 2048, panel, r);
    }

    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_nibbles(p, kChunk / 4, panel, r);
        whole_scales_and_minima(p + 2048, scales, r);
    }
};

}  // namespace corral::CORRAL_ISA
