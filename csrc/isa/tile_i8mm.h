// Tiles of 8 rows and pairs of tokens: smmla multiplies 2 rows x 8 columns by 8 columns x 2 tokens, twice the work of a dot.
#pragma once
#include <arm_neon.h>

#include "../formats/layout.h"

namespace corral::CORRAL_ISA {

constexpr int kTilePairs = 3;  // 12 integer and 12 float accumulators, 4 registers of weights, 1 of activations
constexpr int kFewestPairedTokens = 4;  // below, arranging the panel costs more than it saves

// In place: columns 8i to 8i + 7 of a row side by side, two rows a register.
static void pair_rows(Panel<1>& panel, int columns) {
    for (int k = 0; k < columns; k += 8) {
        uint8_t *first = panel.q[k / 4][0], *second = panel.q[k / 4 + 1][0];
        uint32x4_t a[4], b[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            a[i] = vreinterpretq_u32_u8(vld1q_u8(first + 16 * i));
            b[i] = vreinterpretq_u32_u8(vld1q_u8(second + 16 * i));
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            uint8_t* out = (i < 2 ? first : second) + 32 * (i % 2);
            vst1q_u8(out, vreinterpretq_u8_u32(vzip1q_u32(a[i], b[i])));
            vst1q_u8(out + 16, vreinterpretq_u8_u32(vzip2q_u32(a[i], b[i])));
        }
    }
}

// Rows [first_row, first_row + 8) for up to 2 P tokens. An odd last token is its own partner.
template <class Kind, int P>
CORRAL_INLINE void pair_tile(const Panel<1>& panel, int first_row, int subs, const ActBlock* x, int tokens,
                             Outputs<1> y) {
    constexpr int kSub = Kind::kSub, kPerAct = kActGroup / kSub;
    const ActBlock* act[2 * P];
#pragma GCC unroll 8
    for (int t = 0; t < 2 * P; t++) act[t] = x + (t < tokens ? t : tokens - 1);
    float32x4_t f[2 * P][2];
#pragma GCC unroll 8
    for (int t = 0; t < 2 * P; t++) f[t][0] = f[t][1] = vdupq_n_f32(0.0f);
    for (int j = 0; j < subs; j++) {
        int32x4_t a[P][4];  // [rows 2i and 2i + 1][both tokens]
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            int32x4_t start = vdupq_n_s32(0);
            if constexpr (Kind::kOffsetLog2 >= 0 && !Kind::kSigned) {
                const ActBlock &even = *act[2 * p], &odd = *act[2 * p + 1];
                const int32x2_t sums = {kSub == 32 ? even.minus_sum32[j] : even.minus_sum16[j],
                                        kSub == 32 ? odd.minus_sum32[j] : odd.minus_sum16[j]};
                start = vshlq_n_s32(vcombine_s32(sums, sums), Kind::kOffsetLog2 >= 0 ? Kind::kOffsetLog2 : 0);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) a[p][i] = start;
        }
#pragma GCC unroll 4
        for (int k = j * kSub; k < (j + 1) * kSub; k += 8) {
            int8x16_t w[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                w[i] = vreinterpretq_s8_u8(vld1q_u8(panel.q[k / 4 + first_row / 8][0] + 16 * i));
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                const int8x16_t both = vcombine_s8(vld1_s8(act[2 * p]->q + k), vld1_s8(act[2 * p + 1]->q + k));
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) a[p][i] = vmmlaq_s32(a[p][i], w[i], both);
            }
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const float32x4_t s = vld1q_f32(panel.s[j][0] + first_row + 4 * half);
#pragma GCC unroll 8
            for (int t = 0; t < 2 * P; t++) {
                const int32x4_t low = a[t / 2][2 * half], high = a[t / 2][2 * half + 1];
                const int32x4_t sum = t % 2 ? vuzp2q_s32(low, high) : vuzp1q_s32(low, high);
                f[t][half] = vfmaq_n_f32(f[t][half], vmulq_f32(vcvtq_f32_s32(sum), s), act[t]->d[j / kPerAct]);
            }
            if constexpr (Kind::kMinimum) {
                const float32x4_t m = vld1q_f32(panel.m[j][0] + first_row + 4 * half);
#pragma GCC unroll 8
                for (int t = 0; t < 2 * P; t++) {
                    const float* ds = j % kPerAct == kPerAct - 1 ? act[t]->ds : act[t]->ds_first;
                    f[t][half] = vfmsq_n_f32(f[t][half], m, ds[j / kPerAct]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < 2 * P; t++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            if (t >= tokens) continue;
            const int row = first_row + 4 * half;
            const float32x4_t sum = y.first ? f[t][half] : vaddq_f32(vld1q_f32(y.sums + t * 16 + row), f[t][half]);
            vst1q_f32(y.to + static_cast<size_t>(t) * y.stride + row, sum);
        }
}

// All tokens over a panel that pair_rows has arranged.
template <class Kind, int P>
static void pair_tiles(const Panel<1>& panel, int subs, const ActBlock* x, int tokens, Outputs<1> y) {
    int t = 0;
    for (; t + 2 * P - 1 <= tokens; t += 2 * P)
        for (int row = 0; row < 16; row += 8) pair_tile<Kind, P>(panel, row, subs, x + t, tokens - t, y.from(t));
    if constexpr (P > 1)
        if (t < tokens) pair_tiles<Kind, P - 1>(panel, subs, x + t, tokens - t, y.from(t));
}

}  // namespace corral::CORRAL_ISA
