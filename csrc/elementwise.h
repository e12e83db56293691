// Ops on one row of one token.
#pragma once
#include "kernels.h"

namespace corral::CORRAL_ISA {

// e^x to about 1 ulp: x = n ln2 + r, |r| <= ln2 / 2, e^r by its Taylor series to r^7 (remainder < 6e-9), times 2^n.
// 0 below -87 (where the result would be subnormal), e^88 above.
CORRAL_INLINE F16 exp16(F16 x) {
    const F16 lowest = fset(-87.0f);
    F16 clamped = fmin(fmax(x, lowest), fset(88.0f));
    F16 n = fround(clamped * fset(1.44269504088896f));
    F16 r = fnma(n, fset(0.693145751953125f), clamped);  // ln2 in two parts: the first is exact times n
    r = fnma(n, fset(1.42860682030941723e-6f), r);
    F16 y = fset(1.0f / 5040);
    y = fma(y, r, fset(1.0f / 720));
    y = fma(y, r, fset(1.0f / 120));
    y = fma(y, r, fset(1.0f / 24));
    y = fma(y, r, fset(1.0f / 6));
    y = fma(y, r, fset(0.5f));
    y = fma(y, r, fset(1.0f));
    y = fma(y, r, fset(1.0f));
    return fselect_lt(x, lowest, fzero(), y * fpow2(n));
}

template <class Fn>
CORRAL_INLINE void map_row(int n, float* out, Fn fn) {
    int i = 0;
    for (; i + 16 <= n; i += 16) fstore(out + i, fn(i, 16));
    if (i < n) fstore_some(out + i, fn(i, n - i), n - i);
}
CORRAL_INLINE F16 load_n(const float* p, int n) { return n == 16 ? fload(p) : fload_some(p, n); }

static void add_row(const float* a, const float* b, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return load_n(a + i, m) + load_n(b + i, m); });
}
static void scale_row(const float* x, float factor, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return load_n(x + i, m) * fset(factor); });
}
// x * sigmoid(x)
CORRAL_INLINE F16 silu16(F16 x) { return x / (fset(1.0f) + exp16(fzero() - x)); }
// 0.5 x (1 + tanh(y)) = x * sigmoid(2 y), y = sqrt(2 / pi) (x + 0.044715 x^3)
CORRAL_INLINE F16 gelu16(F16 x) {
    F16 y = x * fma(x * x, fset(0.044715f), fset(1.0f)) * fset(1.5957691216057308f);
    return x / (fset(1.0f) + exp16(fzero() - y));
}
static void silu_row(const float* x, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return silu16(load_n(x + i, m)); });
}
static void gelu_row(const float* x, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return gelu16(load_n(x + i, m)); });
}
static void silu_mul_row(const float* gate, const float* up, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return silu16(load_n(gate + i, m)) * load_n(up + i, m); });
}
static void gelu_mul_row(const float* gate, const float* up, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return gelu16(load_n(gate + i, m)) * load_n(up + i, m); });
}
// cap * tanh(y), y = x / cap; tanh(y) = 1 - 2 / (e^(2 y) + 1)
CORRAL_INLINE F16 softcap16(F16 x, float cap) {
    F16 e = exp16(x * fset(2.0f / cap));
    return fset(cap) - fset(2.0f * cap) / (e + fset(1.0f));
}
static void softcap_row(const float* x, float cap, int n, float* out) {
    map_row(n, out, [&](int i, int m) { return softcap16(load_n(x + i, m), cap); });
}

static void rms_norm_row(const float* x, const float* weight, int n, int run, float eps, float* out) {
    for (int start = 0; start < n; start += run) {
        F16 squares = fzero();
        int i = 0;
        for (; i + 16 <= run; i += 16) {
            F16 v = fload(x + start + i);
            squares = fma(v, v, squares);
        }
        if (i < run) {
            F16 v = fload_some(x + start + i, run - i);
            squares = fma(v, v, squares);
        }
        const float mean = fsum(squares) / static_cast<float>(run);
        const F16 inverse = fset(1.0f / __builtin_sqrtf(mean + eps));
        map_row(run, out + start,
                [&](int j, int m) { return load_n(x + start + j, m) * inverse * load_n(weight + j, m); });
    }
}

// bias: [n] or null
static void layer_norm_row(const float* x, const float* weight, const float* bias, int n, float eps, float* out) {
    F16 sum = fzero(), squares = fzero();
    for (int i = 0; i < n; i += 16) sum = sum + load_n(x + i, n - i < 16 ? n - i : 16);
    const F16 mean = fset(fsum(sum) / static_cast<float>(n));
    for (int i = 0; i < n; i += 16) {
        const F16 v = fkeep(load_n(x + i, n - i < 16 ? n - i : 16) - mean, 0, n - i, 0.0f);
        squares = fma(v, v, squares);
    }
    const F16 inverse = fset(1.0f / __builtin_sqrtf(fsum(squares) / static_cast<float>(n) + eps));
    map_row(n, out, [&](int i, int m) {
        const F16 y = (load_n(x + i, m) - mean) * inverse;
        return bias ? fma(y, load_n(weight + i, m), load_n(bias + i, m)) : y * load_n(weight + i, m);
    });
}

// table: cosines then sines, rotated / 2 of each
static void rope_row(const float* x, const float* table, int n, int head_dim, int rotated, bool interleaved,
                     float* out) {
    const int half = rotated / 2;
    const float *cosine = table, *sine = table + half;
    for (int h = 0; h < n; h += head_dim) {
        const int step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
        for (int i = 0; i < half; i++) {
            const float a = x[h + i * step], b = x[h + i * step + other];
            out[h + i * step] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
            out[h + i * step + other] = __builtin_fmaf(a, sine[i], b * cosine[i]);
        }
        for (int i = rotated; i < head_dim; i++) out[h + i] = x[h + i];
    }
}

}  // namespace corral::CORRAL_ISA
