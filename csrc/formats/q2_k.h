// Q2_K: 256 weights in 16 sub-blocks of 16, w = d * scale * q - dmin * minimum.
// File: 16 bytes of a scale (low) and a minimum (high); 64 bytes, in each 32 of which the bit pairs are four runs of 32 columns;
// d f16, dmin f16. Packed chunk: pairs; scales and minima; d; dmin.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q2_K {
    static constexpr int kType = 10, kBlockWeights = 256, kBlockBytes = 84, kSub = 16, kOffsetLog2 = -1;
    static constexpr int kBits = 2;
    static constexpr bool kMinimum = true;
    static constexpr int kScaledOffset = 0;

    static size_t chunk_bytes(int) { return 1024 + 256 + 64; }

    static void bytes(const uint8_t* pairs, uint8_t* q) {
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 32; j++) q[32 * i + j] = pairs[i / 4 * 32 + j] >> (i % 4 * 2) & 3;
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        bytes(block + 16, q);
        const float d = half_to_float(read_u16(block + 80)), dmin = half_to_float(read_u16(block + 82));
        for (int j = 0; j < 16; j++) {
            const float s = d * static_cast<float>(block[j] & 15), m = dmin * static_cast<float>(block[j] >> 4);
            for (int i = 16 * j; i < 16 * j + 16; i++) out[i] = s * static_cast<float>(q[i]) - m;
        }
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t *scales = out + 1024, *halves = scales + 256;
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r] + 16, q[r]);
            for (int j = 0; j < 16; j++) scales[16 * j + r] = rows[r][j];
            memcpy(halves + 2 * r, rows[r] + 80, 2);
            memcpy(halves + 32 + 2 * r, rows[r] + 82, 2);
        }
        interleave(q, k, quads);
        pack_pairs<0>(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_pairs(p, k / 4, panel, r);
        const uint8_t *scales = p + 1024, *halves = scales + 256;
        alignas(64) uint8_t low[256], high[256];
        unpack_nibbles_apart(scales, 4, low, high);
        const F16 d = fload_half(reinterpret_cast<const uint16_t*>(halves));
        const F16 dmin = fload_half(reinterpret_cast<const uint16_t*>(halves + 32));
        for (int j = 0; j < 16; j += 2) {
            const F16 first = dmin * fload_u8(high + 16 * j), second = dmin * fload_u8(high + 16 * j + 16);
            fstore(panel.s[j][r], d * fload_u8(low + 16 * j));
            fstore(panel.s[j + 1][r], d * fload_u8(low + 16 * j + 16));
            fstore(panel.m[j][r], first - second);
            fstore(panel.m[j + 1][r], second);
        }
    }

#if defined(CORRAL_WHOLE_CHUNKS)
    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_pairs(p, kChunk / 4, panel, r);
        alignas(64) uint8_t low[256];
        unpack_minima(p + 1024, low, scales, r);
        for (int j = 0; j < 16; j++) widen_16(low + 16 * j, scales.s[j][r]);
    }

    template <int R>
    CORRAL_INLINE void unpack_scaled(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        alignas(64) uint8_t low[256];
        unpack_minima(p + 1024, low, scales, r);
        const U64 pair = uset(3);
        for (int j = 0; j < 16; j++) {
            const U64 four = uload(p + 64 * j);
            const RowScales factors(low + 16 * j);
            for (int z = 0; z < 4; z++) ustore(panel.q[4 * j + z][r], factors.times(ushr(four, 2 * z) & pair));
        }
    }

   private:
    // And the scales, which `low` gets.
    template <int R>
    CORRAL_INLINE void unpack_minima(const uint8_t* nibbles, uint8_t* low, WholeScales<R>& scales, int r) {
        const uint8_t* halves = nibbles + 256;
        alignas(64) uint8_t high[256];
        unpack_nibbles_apart(nibbles, 4, low, high);
        for (int i = 0; i < 8; i++) pair_16(high + 32 * i, high + 32 * i + 16, scales.m[i][r]);
        fstore(scales.d[r], fload_half(reinterpret_cast<const uint16_t*>(halves)));
        fstore(scales.dmin[r], fload_half(reinterpret_cast<const uint16_t*>(halves + 32)));
    }
#endif
};

}  // namespace corral::CORRAL_ISA
