// MXFP4: 32 weights, w = 2^(e - 128) * value[c]: twice the numbers of E2M1 (OCP Microscaling Formats 1.0).
// File: e; 16 bytes of nibbles as Q4_0. Packed chunk: nibbles, then e of each sub-block.
#pragma once
#include "layout.h"

namespace corral::CORRAL_ISA {

struct MXFP4 {
    static constexpr int kType = 39, kBlockWeights = 32, kBlockBytes = 17, kSub = 32, kOffsetLog2 = 4;
    static constexpr int kBits = 5;
    static constexpr bool kMinimum = false;
    static constexpr int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    static constexpr Table kTable{kValues, 1 << kOffsetLog2};

    static size_t chunk_bytes(int k) { return round64(static_cast<size_t>(k) * 17 / 2); }

    // as bits, since the smallest two are below the normal floats
    static float scale(uint8_t e) { return bits_to_float(e < 2 ? 0x00200000u << e : (e - 1u) << 23); }

    static void dequantize(const uint8_t* block, float* out) {
        uint8_t codes[32];
        nibble_halves(block + 1, codes);
        const float s = scale(block[0]);
        for (int j = 0; j < 32; j++) out[j] = s * static_cast<float>(kValues[codes[j]]);
    }

    static void pack(const uint8_t* const* rows, int k, uint8_t* out) {
        uint8_t codes[16][kChunk] = {}, quads[kChunk / 4][64];
        uint8_t* exponents = out + k * 8;
        for (int r = 0; r < 16; r++)
            for (int j = 0; j < k / 32 && rows[r]; j++) {
                const uint8_t* block = rows[r] + j * kBlockBytes;
                nibble_halves(block + 1, codes[r] + 32 * j);
                exponents[16 * j + r] = block[0];
            }
        interleave(codes, k, quads);
        pack_nibbles(quads, k / 4, out);
    }

    template <int R>
    CORRAL_INLINE void unpack(const uint8_t* p, int k, Panel<R>& panel, int r) {
        unpack_nibbles(p, k / 4, panel, r, Lookup{utable(kTable.bytes)});
        const uint8_t* exponents = p + k * 8;
        const F16 middle = fset(127.0f);
        for (int j = 0; j < k / 32; j++) {
            const F16 e = fload_u8(exponents + 16 * j);
            // two normal factors, for a product that need not be
            const F16 low = fpow2(fmin(e, middle) - fset(64.0f)), high = fpow2(fmax(e, middle) - fset(191.0f));
            fstore(panel.s[j][r], low * high);
        }
    }
};

}  // namespace corral::CORRAL_ISA
