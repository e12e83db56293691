// Q6_K: 256 weights in 16 sub-blocks of 16, w = d * scale * (q - 32).
// File: 128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, d f16. Packed chunk: nibbles, pairs, scales, d.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q6_K {
    static constexpr int kType = 14, kBlockWeights = 256, kBlockBytes = 210, kSub = 16, kOffsetLog2 = 5;
    static constexpr int kBits = 6;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int) { return 2048 + 1024 + 256 + 64; }

    static void bytes(const uint8_t* block, uint8_t* q) {
        for (int half = 0; half < 2; half++) {
            const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
            for (int j = 0; j < 32; j++) {
                uint8_t h = high[j], *out = q + 128 * half + j;
                out[0] = static_cast<uint8_t>((low[j] & 15) | (h & 3) << 4);
                out[32] = static_cast<uint8_t>((low[j + 32] & 15) | (h >> 2 & 3) << 4);
                out[64] = static_cast<uint8_t>((low[j] >> 4) | (h >> 4 & 3) << 4);
                out[96] = static_cast<uint8_t>((low[j + 32] >> 4) | (h >> 6) << 4);
            }
        }
    }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        bytes(block, q);
        float d = half_to_float(read_u16(block + 208));
        for (int j = 0; j < 16; j++) {
            float s = d * static_cast<float>(static_cast<int8_t>(block[192 + j]));
            for (int i = 0; i < 16; i++) out[16 * j + i] = s * static_cast<float>(q[16 * j + i] - 32);
        }
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t *scales = out + 3072, *halves = scales + 256;
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            bytes(rows[r], q[r]);
            for (int j = 0; j < 16; j++) scales[16 * j + r] = rows[r][192 + j];
            memcpy(halves + 2 * r, rows[r] + 208, 2);
        }
        interleave(q, k, quads);
        pack_nibbles(quads, k / 4, out);
        pack_pairs<4>(quads, k / 4, out + 2048);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles_pairs(p, p + 2048, k / 4, panel, r);
        unpack_signed_scales<16>(p + 3072, panel, r);
    }

    template <int R>
    CORRAL_INLINE void unpack_whole(const uint8_t* p, Panel<R>& panel, WholeScales<R>& scales, int r) {
        unpack_nibbles_pairs(p, p + 2048, kChunk / 4, panel, r);
        whole_signed_scales<16>(p + 3072, scales, r);
    }
};

}  // namespace corral::CORRAL_ISA
