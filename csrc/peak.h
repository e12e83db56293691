// Loops that find what a thread can do at most, for `corral bench`.
#pragma once
#include "formats/layout.h"

namespace corral::CORRAL_ISA {

// `rounds` times 12 independent chains of dots, on operands in L1 that change from round to round; returns the multiply-adds done.
static int64_t peak_dots(int64_t rounds) {
    alignas(64) uint8_t weights[8][2][64];
    int8_t acts[16][4];
    for (int i = 0; i < 1024; i++) weights[i / 128][i / 64 % 2][i % 64] = static_cast<uint8_t>(i % 16);
    for (int i = 0; i < 64; i++) acts[i / 4][i % 4] = static_cast<int8_t>(i - 32);
    I16 acc[12];
    for (I16& a : acc) a = izero();
    for (int64_t i = 0; i < rounds; i++) {
        const U64 w[2] = {uload(weights[i % 8][0]), uload(weights[i % 8][1])};
#pragma GCC unroll 12
        for (int chain = 0; chain < 12; chain++) acc[chain] = dot(acc[chain], w[chain % 2], acts[(i + chain / 2) % 16]);
    }
    F16 sum = fzero();
    for (const I16& a : acc) sum = sum + to_float(a);
    volatile float keep = fsum(sum);
    (void)keep;
    return rounds * 12 * 64;
}

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
