// K-quants in AMX registers: 16 tokens by 16 rows, 64 columns an instruction.
//
// Weights times their scale are up to 13 bits; the tiles take them in two bytes. For few tokens, dots give the same integers.
#pragma once
#include <immintrin.h>

#include "whole_vnni.h"

namespace corral::CORRAL_ISA {

constexpr int kTileRows = 16;  // tokens of a tile, and weights
constexpr int kTileColumns = 64;
constexpr int kFewestTiledTokens = 16;  // below, taking the weights apart costs more than it saves
static_assert(kActPadding >= kTileRows - 1, "the last tile reads as many tokens as the others");

// The two bytes of weights times scales, 256 columns of 16 rows: low + 256 high.
struct WholePlanes {
    alignas(64) uint8_t low[kChunk / 4][64];
    alignas(64) uint8_t high[kChunk / 4][64];
};

struct TileScratch {
    WholePlanes planes;
    alignas(64) int32_t sums[2][2][kTileRows][16];  // [tile][low, high][token][row]
};

// What ldtilecfg reads (Intel's manual of instructions, LDTILECFG): all eight tiles are 16 rows of 64 bytes. A constant: gcc does not
// know that the intrinsic reads all of it, and would leave out the stores that fill one.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static constexpr TileConfig kTileConfig;

// Nor does it know that tiles are loaded from memory: what was stored before this is there.
CORRAL_INLINE void before_tile_loads() { asm volatile("" ::: "memory"); }

// The tile registers of this thread while it lives. They are given back after it: a thread that has them is slower to switch.
class Tiles {
   public:
    explicit Tiles(bool used) : used_(used) {
        if (used) _tile_loadconfig(&kTileConfig);
    }
    ~Tiles() {
        if (used_) _tile_release();
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

   private:
    const bool used_;
};

// Weights times scales, in planes.
template <class Kind, int R>
CORRAL_INLINE void take_apart(const Panel<R>& panel, const WholeScales<R>& scales, int r, WholePlanes& planes) {
    constexpr int kQuads = Kind::kSub / 4;
    const __m512i byte = _mm512_set1_epi16(255),
                  offset = _mm512_set1_epi16(1 << (Kind::kOffsetLog2 < 0 ? 0 : Kind::kOffsetLog2));
    constexpr __mmask64 kOdd = 0xaaaaaaaaaaaaaaaa;
    for (int j = 0; j < kChunk / Kind::kSub; j++) {
        const __m512i scale = _mm512_loadu_si512(scales.s[j][r]);
        const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, scale, _mm512_slli_epi32(scale, 16));
#pragma GCC unroll 8
        for (int k = 0; k < kQuads; k++) {
            const int quad = j * kQuads + k;
            const __m512i q = _mm512_loadu_si512(panel.q[quad][r]);
            __m512i even = _mm512_and_si512(q, byte), odd = _mm512_srli_epi16(q, 8);
            if constexpr (Kind::kOffsetLog2 >= 0) {
                even = _mm512_sub_epi16(even, offset);
                odd = _mm512_sub_epi16(odd, offset);
            }
            even = _mm512_mullo_epi16(even, both);
            odd = _mm512_mullo_epi16(odd, both);
            _mm512_store_si512(planes.low[quad], _mm512_mask_blend_epi8(kOdd, even, _mm512_slli_epi16(odd, 8)));
            _mm512_store_si512(planes.high[quad], _mm512_mask_blend_epi8(kOdd, _mm512_srli_epi16(even, 8), odd));
        }
    }
}

// Many tokens: two tiles of them at a time. The last tile may have tokens that are not there, whose sums nobody takes. Where a scaled
// weight is one byte, tiles take the panel as it is, one half of the columns as `low` and the other as `high`.
template <class Kind, int R>
static void whole_tiles(const Panel<R>& panel, const WholeScales<R>& scales, int r, TileScratch& scratch,
                        const WholeBlock* x, int tokens, Outputs<R> y) {
    constexpr int kColumns = Kind::kScaledByte ? kChunk / 2 : kChunk;
    constexpr int kStride = Kind::kScaledByte ? R * 64 : 64;
    const uint8_t *low = Kind::kScaledByte ? panel.q[0][r] : scratch.planes.low[0],
                  *high = Kind::kScaledByte ? panel.q[kColumns / 4][r] : scratch.planes.high[0];
    if constexpr (!Kind::kScaledByte) take_apart<Kind>(panel, scales, r, scratch.planes);
    const WholeFold<Kind, R> fold(scales, r);
    before_tile_loads();
    for (int t0 = 0; t0 < tokens; t0 += 2 * kTileRows) {
        const bool more = tokens - t0 > kTileRows;
        const int8_t *first = x[t0].q, *second = x[t0 + kTileRows].q;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
#pragma GCC unroll 4
        for (int k = 0; k < kColumns; k += kTileColumns) {
            _tile_loadd(6, low + k / 4 * kStride, kStride);
            _tile_loadd(7, high + k / 4 * kStride, kStride);
            _tile_loadd(4, first + k, sizeof(WholeBlock));
            _tile_dpbsud(0, 4, 6);
            if constexpr (Kind::kScaledByte) {
                _tile_loadd(4, first + kColumns + k, sizeof(WholeBlock));
                _tile_dpbsud(1, 4, 7);
            } else {
                _tile_dpbssd(1, 4, 7);
            }
            if (!more) continue;
            _tile_loadd(5, second + k, sizeof(WholeBlock));
            _tile_dpbsud(2, 5, 6);
            if constexpr (Kind::kScaledByte) {
                _tile_loadd(5, second + kColumns + k, sizeof(WholeBlock));
                _tile_dpbsud(3, 5, 7);
            } else {
                _tile_dpbssd(3, 5, 7);
            }
        }
        _tile_stored(0, scratch.sums[0][0], 64);
        _tile_stored(1, scratch.sums[0][1], 64);
        if (more) {
            _tile_stored(2, scratch.sums[1][0], 64);
            _tile_stored(3, scratch.sums[1][1], 64);
        }
        const int count = tokens - t0 < 2 * kTileRows ? tokens - t0 : 2 * kTileRows;
        for (int t = 0; t < count; t++) {
            const auto& sums = scratch.sums[t / kTileRows];
            const I16 a = iload(sums[0][t % kTileRows]), b = iload(sums[1][t % kTileRows]);
            if (y.stride != R * 16) __builtin_prefetch(y.to + static_cast<size_t>(t0 + t + 16) * y.stride + r * 16, 1);
            y.put(t0 + t, r, fold(a + (Kind::kScaledByte ? b : b << 8), x[t0 + t], y.before(t0 + t, r)));
        }
    }
}

}  // namespace corral::CORRAL_ISA
