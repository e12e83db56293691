// Chunks with integer scales: one sum of 256 products, one float.
//
// AMX multiplies faster than anybody folds sums of sub-blocks into floats, so there are none to fold: scales of sub-blocks are
// integers here, and so are the sums of a whole chunk of 256, exactly. Activations have one scale for 256 (acts.h). Where a weight
// times its scale is one byte, VNNI gains too: half as many instructions.
#pragma once
#include <immintrin.h>

#include "../tiles.h"

namespace corral::CORRAL_ISA {

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
        if constexpr (Kind::kScaledOffset > 0) total = total + I16{_mm512_set1_epi32(-Kind::kScaledOffset * x.sum)};
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

// A tile of T tokens without AMX: dots of sub-blocks, times their scales where the weights do not have these in them.
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
        if constexpr (Kind::kScaledByte) {
#pragma GCC unroll 8
            for (int k = 0; k < kSub / 4; k++) dots<Kind>(panel, j * (kSub / 4) + k, x, total);
        } else {
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
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const WholeFold<Kind, R> fold(scales, r);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) y.put(t, r, fold(total[t][r], x[t], y.before(t, r)));
    }
}

}  // namespace corral::CORRAL_ISA
