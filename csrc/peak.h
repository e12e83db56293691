// Loops that find what a thread can do at most, for `corral bench`.
#pragma once
#include "matmul.h"

namespace corral::CORRAL_ISA {

#if defined(__AMX_INT8__)
// `rounds` times four products of tiles in registers; returns the multiply-adds done.
static int64_t peak_dots(int64_t rounds) {
    const Tiles tiles(true);
    alignas(64) uint8_t ones[kTileRows * 64];
    memset(ones, 1, sizeof ones);
    before_tile_loads();
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbsud(0, 6, 7);
        _tile_dpbsud(1, 6, 7);
        _tile_dpbsud(2, 6, 7);
        _tile_dpbsud(3, 6, 7);
    }
    return rounds * 4 * kTileRows * 16 * 64;
}
#else
// `rounds` times the dots of a tile over a sub-block of bytes of four bits, all in L1; returns the multiply-adds done.
static int64_t peak_dots(int64_t rounds) {
    using Kind = TileKind<32, -1, false, false, run_of(32, 4)>;
    constexpr int kQuads = 8;
    Panel<kTileGroups> panel;
    ActBlock x[kTileTokens];
    for (int i = 0; i < 2 * kQuads; i++)
        for (auto& quads : panel.q[i])
            for (int j = 0; j < 64; j++) quads[j] = static_cast<uint8_t>((i + j) % 16);
    for (ActBlock& act : x)
        for (int i = 0; i < kChunk; i++) act.q[i] = static_cast<int8_t>(i % 64 - 32);
    I16 acc[kTileTokens][kTileGroups];
    for (auto& token : acc)
        for (I16& a : token) a = izero();
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 8
        for (int k = 0; k < kQuads; k += Kind::kRun) dots<Kind>(panel, kQuads * (i % 2) + k, x, acc);
    F16 sum = fzero();
    for (auto& token : acc)
        for (const I16& a : token) sum = sum + to_float(a);
    volatile float keep = fsum(sum);
    (void)keep;
    return rounds * kQuads * kTileTokens * kTileGroups * 64;
}
#endif

// Read n bytes, a multiple of 256, once, in order.
static void read_stream(const uint8_t* p, size_t n) {
    U64 acc[4] = {uset(0), uset(0), uset(0), uset(0)};
    for (size_t i = 0; i < n; i += 256) {
#pragma GCC unroll 4
        for (size_t line = 0; line < 4; line++) {
            prefetch(p + i + 64 * line);
            acc[line] = acc[line] ^ uload(p + i + 64 * line);
        }
    }
    uint8_t bytes[64];
    ustore(bytes, (acc[0] ^ acc[1]) ^ (acc[2] ^ acc[3]));
    volatile uint8_t keep = bytes[0];
    (void)keep;
}

}  // namespace corral::CORRAL_ISA
