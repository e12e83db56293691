// Helpers shared by the formats: bits of 16 interleaved rows, packed and unpacked.
//
// Interleaved: 64 bytes hold four consecutive columns ("a quad") of 16 rows, row by row. A chunk has up to 64 quads.
#pragma once
#include <cstdint>
#include <cstring>

#include "../half.h"
#include "../kernels.h"

namespace corral::CORRAL_ISA {

// What unpack writes and the tiles read: bytes and, per sub-block and row, scale and minimum.
template <int R>
struct Panel {
    alignas(64) uint8_t q[kChunk / 4][R][64];
    float s[16][R][16];
    float m[8][R][16];
};

constexpr size_t round64(size_t n) { return (n + 63) / 64 * 64; }

CORRAL_INLINE uint16_t read_u16(const uint8_t* p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

// 16 rows of k bytes -> k / 4 quads of 64 bytes
CORRAL_INLINE void interleave(const uint8_t (*rows)[kChunk], int k, uint8_t (*quads)[64]) {
    for (int quad = 0; quad < k / 4; quad++)
        for (int r = 0; r < 16; r++) memcpy(quads[quad] + 4 * r, rows[r] + 4 * quad, 4);
}

// Low four bits of quads 2z and 2z + 1 to the halves of the bytes of line z.
CORRAL_INLINE void pack_nibbles(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int z = 0; z < count / 2; z++)
        for (int i = 0; i < 64; i++)
            out[64 * z + i] = static_cast<uint8_t>((quads[2 * z][i] & 15) | (quads[2 * z + 1][i] & 15) << 4);
}

// Bit 4 of eight quads to the bits of a line.
CORRAL_INLINE void pack_fifth_bits(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int y = 0; y < count / 8; y++)
        for (int i = 0; i < 64; i++) {
            uint8_t byte = 0;
            for (int b = 0; b < 8; b++) byte |= static_cast<uint8_t>((quads[8 * y + b][i] >> 4 & 1) << b);
            out[64 * y + i] = byte;
        }
}

// Bits 4 and 5 of four quads to the bit pairs of a line.
CORRAL_INLINE void pack_high_pairs(const uint8_t (*quads)[64], int count, uint8_t* out) {
    for (int y = 0; y < count / 4; y++)
        for (int i = 0; i < 64; i++) {
            uint8_t byte = 0;
            for (int b = 0; b < 4; b++) byte |= static_cast<uint8_t>((quads[4 * y + b][i] >> 4 & 3) << (2 * b));
            out[64 * y + i] = byte;
        }
}

// How far ahead of the unpacking the packed stream is fetched: enough for memory latency at full bandwidth.
constexpr int kPrefetchBytes = 9472;
CORRAL_INLINE void prefetch(const uint8_t* p) { __builtin_prefetch(p + kPrefetchBytes, 0, 3); }

template <int R>
CORRAL_INLINE void unpack_nibbles(const uint8_t* p, int count, Panel<R>& panel, int r) {
    const U64 low = uset(15);
    for (int z = 0; z < count / 2; z++) {
        prefetch(p + 64 * z);
        U64 both = uload(p + 64 * z);
        ustore(panel.q[2 * z][r], both & low);
        ustore(panel.q[2 * z + 1][r], ushr(both, 4) & low);
    }
}

template <int R>
CORRAL_INLINE void unpack_nibbles_fifth(const uint8_t* p, const uint8_t* high, int count, Panel<R>& panel, int r) {
    const U64 low = uset(15), bit = uset(16);
    for (int y = 0; y < count / 8; y++) {
        U64 h = uload(high + 64 * y);
        prefetch(high + 64 * y);
        for (int z = 0; z < 4; z++) {
            prefetch(p + 64 * (4 * y + z));
            U64 both = uload(p + 64 * (4 * y + z));
            int q = 8 * y + 2 * z, b = 2 * z;
            U64 first = b < 4 ? ushl(h, 4 - b) : ushr(h, b - 4), second = b + 1 < 4 ? ushl(h, 3 - b) : ushr(h, b - 3);
            ustore(panel.q[q][r], (both & low) | (first & bit));
            ustore(panel.q[q + 1][r], (ushr(both, 4) & low) | (second & bit));
        }
    }
}

template <int R>
CORRAL_INLINE void unpack_nibbles_pairs(const uint8_t* p, const uint8_t* high, int count, Panel<R>& panel, int r) {
    const U64 low = uset(15), pair = uset(48);
    for (int y = 0; y < count / 4; y++) {
        U64 h = uload(high + 64 * y);
        prefetch(high + 64 * y);
        U64 a = uload(p + 128 * y), b = uload(p + 128 * y + 64);
        prefetch(p + 128 * y);
        prefetch(p + 128 * y + 64);
        ustore(panel.q[4 * y][r], (a & low) | (ushl(h, 4) & pair));
        ustore(panel.q[4 * y + 1][r], (ushr(a, 4) & low) | (ushl(h, 2) & pair));
        ustore(panel.q[4 * y + 2][r], (b & low) | (h & pair));
        ustore(panel.q[4 * y + 3][r], (ushr(b, 4) & low) | (ushr(h, 2) & pair));
    }
}

// 16 float16 of each of `subs` sub-blocks, times `sign`
template <int R>
CORRAL_INLINE void unpack_halves(const uint8_t* p, int subs, float sign, float (*out)[R][16], int r) {
    const F16 f = fset(sign);
    for (int j = 0; j < subs; j++) fstore(out[j][r], fload_half(reinterpret_cast<const uint16_t*>(p + 32 * j)) * f);
}

}  // namespace corral::CORRAL_ISA
