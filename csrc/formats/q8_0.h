// Q8_0: 32 weights, w = d * q, q signed. File: d f16; 32 int8.
// Packed chunk: bytes, then d of each sub-block. The panel has q + 128 where the dot takes unsigned bytes.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct Q8_0 {
    static constexpr int kType = 8, kBlockWeights = 32, kBlockBytes = 34, kSub = 32, kOffsetLog2 = 7;
    static constexpr int kBits = 8;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int k) { return round64(static_cast<size_t>(k) * 17); }

    static void dequantize(const uint8_t* block, float* out) {
        float d = half_to_float(read_u16(block));
        for (int j = 0; j < 32; j++) out[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t* scales = out + k * 16;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < k / 32 && rows[r]; j++) {
                const uint8_t* block = rows[r] + j * kBlockBytes;
                memcpy(q[r] + 32 * j, block + 2, 32);
                memcpy(scales + 32 * j + 2 * r, block, 2);
            }
        interleave(q, k, quads);
        memcpy(out, quads, static_cast<size_t>(k) * 16);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        const U64 flip = uset(kSignedWide ? 0 : 128);
        for (int quad = 0; quad < k / 4; quad++) {
            ustore(panel.q[quad][r], uload(p + 64 * quad) ^ flip);
        }
        unpack_halves(p + k * 16, k / 32, 1.0f, panel.s, r);
    }
};

}  // namespace corral::CORRAL_ISA
