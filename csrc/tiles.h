// What all tiles of the matmul share: the weights that come, the outputs that go, and the dots of a few quads in between.
#pragma once
#include "formats/layout.h"

namespace corral::CORRAL_ISA {

// The outputs of some tokens and R groups of rows: their sums so far, and where the sums with one chunk more go.
template <int R>
struct Outputs {
    const float* sums;  // [T][R * 16]
    float* to;          // a token has `stride` numbers
    size_t stride;
    bool first;  // there are no sums yet

    CORRAL_INLINE_MEMBER Outputs from(int token) const {
        return {sums + token * R * 16, to + static_cast<size_t>(token) * stride, stride, first};
    }
    CORRAL_INLINE_MEMBER F16 before(int token, int r) const {
        return first ? fzero() : fload(sums + (token * R + r) * 16);
    }
    CORRAL_INLINE_MEMBER void put(int token, int r, F16 y) const {
        fstore(to + static_cast<size_t>(token) * stride + r * 16, y);
    }
    CORRAL_INLINE_MEMBER void add(int token, int r, F16 f) const {
        put(token, r, first ? f : fload(sums + (token * R + r) * 16) + f);
    }
};

// The packed weights of a chunk to come, as many bytes from each of `runs` places. They are fetched a few lines at a time while
// the dots of the present chunk are computed: all at once they would wait for one another, and the core for them.
class Ahead {
   public:
    Ahead(const uint8_t* first, size_t bytes, int runs, size_t run_stride)
        : next_(first),
          run_stride_(run_stride),
          lines_(static_cast<int>((bytes + 63) / 64)),
          left_(lines_),
          runs_(runs) {}

    // Fetch all with so many calls of `fetch`.
    CORRAL_INLINE_MEMBER void spread(int calls) { dose_ = (lines_ * runs_ + calls - 1) / calls; }

    CORRAL_INLINE_MEMBER void fetch() { fetch(dose_); }
    CORRAL_INLINE_MEMBER void fetch_rest() { fetch(lines_ * runs_); }

   private:
    CORRAL_INLINE_MEMBER void fetch(int lines) {
        for (int i = 0; i < lines && runs_ > 0; i++) {
            __builtin_prefetch(next_, 0, 2);  // to L2: of L1 there is enough for the present chunk only
            next_ += 64;
            if (--left_ > 0) continue;
            next_ += run_stride_ - static_cast<size_t>(lines_) * 64;
            left_ = lines_;
            runs_--;
        }
    }

    const uint8_t* next_;
    size_t run_stride_;
    int lines_, left_, runs_, dose_ = 0;
};

// How many quads of a sub-block may be summed in 16 bits, where that is cheaper: bytes below 2^bits times at most 127, two and two.
constexpr int run_of(int sub, int bits) {
    int run = 1;
    while (kPairSums && run < sub / 4 && 2 * run * 2 * 127 * ((1 << bits) - 1) <= 32767) run *= 2;
    return run;
}

// What a tile has to know of a format: formats of one kind share their tiles.
template <int Sub, int OffsetLog2, bool Minimum, bool Signed, int Run, int ScaledOffset = -1>
struct TileKind {
    static constexpr int kSub = Sub, kOffsetLog2 = OffsetLog2, kRun = Run, kScaledOffset = ScaledOffset;
    static constexpr bool kMinimum = Minimum, kSigned = Signed, kScaledByte = ScaledOffset >= 0;
};
template <class Format>
using KindOf = TileKind<Format::kSub, Format::kOffsetLog2, Format::kMinimum, Format::kBits == 8 && kSignedWide,
                        run_of(Format::kSub, Format::kBits)>;
// The panel has weights times their integer scales, plus kScaledOffset.
template <class Format>
using ScaledKindOf = TileKind<Format::kSub, Format::kOffsetLog2, Format::kMinimum, false, 1, Format::kScaledOffset>;

// a[t][r] += the dots of Kind::kRun quads of the panel, from `quad` on
template <class Kind, int R, int T, class Acts>
CORRAL_INLINE void dots(const Panel<R>& panel, int quad, const Acts* x, I16 (&a)[T][R]) {
    if constexpr (Kind::kRun > 1) {
        Pairs sums[T][R];
#pragma GCC unroll 8
        for (int k = 0; k < Kind::kRun; k++) {
            U64 w[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) w[r] = uload(panel.q[quad + k][r]);
#pragma GCC unroll 16
            for (int t = 0; t < T; t++)
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    const auto pairs = dot_pairs(w[r], x[t].q + 4 * (quad + k));
                    sums[t][r] = k == 0 ? pairs : sums[t][r] + pairs;
                }
        }
#pragma GCC unroll 16
        for (int t = 0; t < T; t++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) a[t][r] = add_pairs(a[t][r], sums[t][r]);
    } else {
        U64 w[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) w[r] = uload(panel.q[quad][r]);
#pragma GCC unroll 16
        for (int t = 0; t < T; t++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const int8_t* four = x[t].q + 4 * quad;
                a[t][r] = Kind::kSigned ? dot_signed(a[t][r], w[r], four) : dot(a[t][r], w[r], four);
            }
    }
}

// As few tiles as tiles of T tokens are, all of about the same size: 8 tokens go as 4 and 4, not as 6 and 2. `tile<N>(t)` is one of N
// tokens from token t on.
template <int T, class Tile>
static void even_tiles(int t, int tokens, const Tile& tile) {
    const int tiles = (tokens + T - 1) / T;
    int whole = T == 1 ? tokens : tokens - tiles * (T - 1);
    for (; whole > 0; whole--, t += T, tokens -= T) tile.template operator()<T>(t);
    if constexpr (T > 1)
        if (tokens > 0) even_tiles<T - 1>(t, tokens, tile);
}

}  // namespace corral::CORRAL_ISA
