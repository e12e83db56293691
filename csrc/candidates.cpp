#include "candidates.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "kernels.h"

namespace corral {

namespace {

constexpr size_t kFewKeys = 512;        // for which a radix sort does not pay
constexpr int kBlocksPerCandidate = 4;  // with fewer, the maxima would be a poor bound

int blocks(int n) { return (n + kLogitBlock - 1) / kLogitBlock; }
int block_end(int block, int n) { return std::min(n, (block + 1) * kLogitBlock); }

// A value that at least k logits reach, and few more do: of the maxima of blocks, k are not below the k-th largest.
float bound_of(const float* row, int n, const float* maxima, int k) {
    const int count = blocks(n);
    std::vector<float> values = k * kBlocksPerCandidate <= count ? std::vector<float>(maxima, maxima + count)
                                                                 : std::vector<float>(row, row + n);
    std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<>());
    return values[static_cast<size_t>(k - 1)];
}

// fn(id) of each logit that is `bound` or more, by rising id
template <class Fn>
void each_from(const float* row, int n, const float* maxima, float bound, Fn fn) {
    for (int b = 0; b < blocks(n); b++) {
        if (maxima[b] < bound) continue;
        for (int i = b * kLogitBlock; i < block_end(b, n); i++)
            if (row[i] >= bound) fn(i);
    }
}

// A logit as an unsigned number that rises as the logit falls; zeros of both signs are one.
struct Key {
    uint32_t falling;
    int32_t id;
};
Key key_of(float value, int id) {
    value += 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return {bits >> 31 ? bits : ~(bits | 0x80000000u), id};
}

// By `falling`; equals stay in their order. Radix sort, a third of the bits at a time.
void sort_keys(std::vector<Key>& keys) {
    constexpr int kBits = 11, kDigits = 1 << kBits;
    std::vector<Key> other(keys.size());
    for (int shift = 0; shift < 32; shift += kBits) {
        auto digit = [shift](const Key& key) { return key.falling >> shift & (kDigits - 1); };
        std::array<uint32_t, kDigits> ends = {};
        for (const Key& key : keys) ends[digit(key)]++;
        uint32_t start = 0;
        for (uint32_t& end : ends) start += std::exchange(end, start);
        for (const Key& key : keys) other[ends[digit(key)]++] = key;
        keys.swap(other);
    }
}

}  // namespace

void top_logits(const float* row, int n, const float* maxima, int k, int32_t* ids, float* values) {
    if (k == 1) {
        const auto best =
            static_cast<int>(std::max_element(maxima, maxima + blocks(n)) - maxima);  // the first of equals
        ids[0] = static_cast<int32_t>(std::max_element(row + best * kLogitBlock, row + block_end(best, n)) - row);
        values[0] = row[ids[0]];
        return;
    }
    std::vector<Key> found;
    each_from(row, n, maxima, bound_of(row, n, maxima, k), [&](int i) { found.push_back(key_of(row[i], i)); });
    if (found.size() < kFewKeys)
        std::sort(found.begin(), found.end(), [](const Key& a, const Key& b) {
            return a.falling != b.falling ? a.falling < b.falling : a.id < b.id;
        });
    else
        sort_keys(found);
    for (int i = 0; i < k; i++) {
        ids[i] = found[static_cast<size_t>(i)].id;
        values[i] = row[ids[i]];
    }
}

int64_t count_logits(const float* row, int n, const float* maxima, float bound) {
    int64_t count = 0;
    each_from(row, n, maxima, bound, [&](int) { count++; });
    return count;
}

void refresh_maxima(const float* row, int n, const int32_t* ids, size_t count, float* maxima) {
    for (size_t i = 0; i < count; i++) {
        const int b = ids[i] / kLogitBlock;
        maxima[b] = *std::max_element(row + b * kLogitBlock, row + block_end(b, n));
    }
}

}  // namespace corral
