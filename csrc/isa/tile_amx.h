// K-quants in AMX registers: 16 tokens by 16 rows, 64 columns an instruction.
//
// AMX multiplies faster than anybody folds sums of sub-blocks into floats, so there are none to fold: scales of sub-blocks are
// integers here, and so are the sums of a whole chunk of 256, exactly. Weights times their scale are up to 13 bits; the tiles take
// them in two bytes. Activations have one scale for 256 (acts.h). For few tokens, dots give the same integers.
#pragma once
#include <immintrin.h>

#include "../tiles.h"

namespace corral::CORRAL_ISA {

constexpr int kTileRows = 16;  // tokens of a tile, and weights
constexpr int kTileColumns = 64;
constexpr int kFewestTiledTokens = 16;  // below, taking the weights apart costs more than it saves
static_assert(kActPadding >= kTileRows - 1, "the last tile reads as many tokens as the others");

// The two bytes of weights times scales, 256 columns of 16 rows: low + 256 high. Where one byte is enough, `low` has the first 128 columns
// and `high` the others.
struct WholePlanes {
    alignas(64) uint8_t low[kChunk / 4][64];
    alignas(64) uint8_t high[kChunk / 4][64];
};

template <int R>
struct WholeScratch {
    WholeScales<R> scales;
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

CORRAL_INLINE I16 iload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
CORRAL_INLINE I16 operator+(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
CORRAL_INLINE I16 operator<<(I16 a, int n) { return {_mm512_slli_epi32(a.v, static_cast<unsigned>(n))}; }
CORRAL_INLINE I16 operator*(I16 a, I16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }

// What makes a chunk's outputs of its sums, of one group of rows.
template <class Kind, int R>
class WholeFold {
   public:
    WholeFold(const WholeScales<R>& scales, int r) : d_(fload(scales.d[r])), dmin_(d_) {
        if constexpr (Kind::kMinimum) {
            dmin_ = fload(scales.dmin[r]);
#pragma GCC unroll 8
            for (int i = 0; i < kPairs; i++) m_[i] = _mm512_loadu_si512(scales.m[i][r]);
        }
    }

    // The output so far and this chunk's.
    CORRAL_INLINE_MEMBER F16 operator()(I16 total, const WholeBlock& x, F16 before) const {
        F16 y = to_float(total) * d_;
        if constexpr (Kind::kMinimum) {
            const int16_t* sums = Kind::kSub == 32 ? x.sum32 : x.sum16;
            __m512i minima = _mm512_setzero_si512();
#pragma GCC unroll 8
            for (int i = 0; i < kPairs; i++) {
                int32_t pair;
                memcpy(&pair, sums + 2 * i, 4);
                minima = _mm512_dpwssd_epi32(minima, m_[i], _mm512_set1_epi32(pair));
            }
            y = fnma(to_float(I16{minima}), dmin_, y);
        }
        return fma(y, fset(x.d), before);
    }

   private:
    static constexpr int kPairs = kChunk / Kind::kSub / 2;
    F16 d_, dmin_;
    __m512i m_[kPairs];
};

// A few tokens: dots of sub-blocks, times their scales.
template <class Kind, int R, int T>
CORRAL_INLINE void whole_dots(const Panel<R>& panel, const WholeScales<R>& scales, const WholeBlock* x, Outputs<R> y,
                              Ahead& ahead) {
    constexpr int kSub = Kind::kSub;
    I16 total[T][R];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) total[t][r] = izero();
    for (int j = 0; j < kChunk / kSub; j++) {
        ahead.fetch();
        I16 a[T][R];
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) {
            I16 start = izero();
            if constexpr (Kind::kOffsetLog2 >= 0) {
                const int sum = kSub == 32 ? x[t].sum32[j] : x[t].sum16[j];
                start = {_mm512_set1_epi32(-(sum * (1 << Kind::kOffsetLog2)))};
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) a[t][r] = start;
        }
#pragma GCC unroll 8
        for (int k = 0; k < kSub / 4; k++) dots<Kind>(panel, j * (kSub / 4) + k, x, a);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const I16 s = iload(scales.s[j][r]);
#pragma GCC unroll 16
            for (int t = 0; t < T; t++) total[t][r] = total[t][r] + a[t][r] * s;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const WholeFold<Kind, R> fold(scales, r);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) y.put(t, r, fold(total[t][r], x[t], y.before(t, r)));
    }
}

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
            const __m512i low = _mm512_mask_blend_epi8(kOdd, even, _mm512_slli_epi16(odd, 8));
            if constexpr (Kind::kScaledByte) {
                constexpr int kHalf = kChunk / 8;
                _mm512_store_si512(quad < kHalf ? planes.low[quad] : planes.high[quad - kHalf], low);
            } else {
                _mm512_store_si512(planes.low[quad], low);
                _mm512_store_si512(planes.high[quad], _mm512_mask_blend_epi8(kOdd, _mm512_srli_epi16(even, 8), odd));
            }
        }
    }
}

// Many tokens: two tiles of them at a time. The last tile may have tokens that are not there, whose sums nobody takes.
template <class Kind, int R>
static void whole_tiles(WholeScratch<R>& scratch, int r, const WholeBlock* x, int tokens, Outputs<R> y) {
    constexpr int kColumns = Kind::kScaledByte ? kChunk / 2 : kChunk;
    const WholePlanes& planes = scratch.planes;
    const WholeFold<Kind, R> fold(scratch.scales, r);
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
            _tile_loadd(6, planes.low[k / 4], 64);
            _tile_loadd(7, planes.high[k / 4], 64);
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
            const I16 low = iload(sums[0][t % kTileRows]), high = iload(sums[1][t % kTileRows]);
            if (y.stride != R * 16) __builtin_prefetch(y.to + static_cast<size_t>(t0 + t + 16) * y.stride + r * 16, 1);
            y.put(t0 + t, r, fold(low + (Kind::kScaledByte ? high : high << 8), x[t0 + t], y.before(t0 + t, r)));
        }
    }
}

// All tokens over a panel of a format that has integer scales.
template <class Kind, int R>
CORRAL_INLINE void all_whole(const Panel<R>& panel, WholeScratch<R>& scratch, const WholeBlock* x, int tokens,
                             Outputs<R> y, Ahead& ahead) {
    if (tokens < kFewestTiledTokens)
        return even_tiles<kTileTokens>(
            0, tokens, [&]<int T>(int t) { whole_dots<Kind, R, T>(panel, scratch.scales, x + t, y.from(t), ahead); });
    ahead.fetch_rest();
    for (int r = 0; r < R; r++) {
        take_apart<Kind>(panel, scratch.scales, r, scratch.planes);
        whole_tiles<Kind>(scratch, r, x, tokens, y);
    }
}

}  // namespace corral::CORRAL_ISA
