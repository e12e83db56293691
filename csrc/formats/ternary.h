// What TQ2_0 and TQ1_0 share: 256 weights, w = d * (q - 1), d a float16 at the end of the block; q is 3 in no proper file.
// Packed chunk: pairs of bits; d. TQ1_0 grows by a quarter: taking base 3 apart costs more than reading two bits.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

// Format::bytes(block, q) gives the 256 numbers of a block.
template <class Format, int Type, int Bytes>
struct TernaryFormat {
    static constexpr int kType = Type, kBlockWeights = 256, kBlockBytes = Bytes, kSub = 32, kOffsetLog2 = 0;
    static constexpr int kBits = 2;
    static constexpr bool kMinimum = false;

    static size_t chunk_bytes(int) { return 1024 + 64; }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t q[256];
        Format::bytes(block, q);
        const float d = half_to_float(read_u16(block + Bytes - 2));
        for (int j = 0; j < 256; j++) out[j] = d * static_cast<float>(q[j] - 1);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t q[16][kChunk] = {}, quads[kChunk / 4][64];
        for (int r = 0; r < 16; r++) {
            if (!rows[r]) continue;
            Format::bytes(rows[r], q[r]);
            memcpy(out + 1024 + 2 * r, rows[r] + Bytes - 2, 2);
        }
        interleave(q, k, quads);
        pack_pairs<0>(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_pairs(p, k / 4, panel, r);
        const F16 d = fload_half(reinterpret_cast<const uint16_t*>(p + 1024));
        for (int j = 0; j < 8; j++) fstore(panel.s[j][r], d);
    }
};

}  // namespace corral::CORRAL_ISA
