// What the kernels of every ISA variant of this CPU give for cases from a file, for test_kernels.py to compare across CPUs.
//
//     kernel_dump                  the variants, best first
//     kernel_dump CASES RESULTS    every case on every variant
//
// CASES, case by case: the int32 counts of letters, ints, floats and arrays; the name; the ints; the floats; each array as its int64
// count of bytes, then the bytes. RESULTS, variant by variant and case by case: an int64 count of bytes, then the bytes.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.h"

namespace corral {

using Bytes = std::vector<uint8_t>;

// Zeros, 64-byte aligned.
class Array {
   public:
    explicit Array(size_t bytes) : lines_((bytes + 63) / 64), bytes_(bytes) {}

    template <class T>
    T* as() const {
        return const_cast<T*>(reinterpret_cast<const T*>(lines_.data()));
    }
    size_t size() const { return bytes_; }

   private:
    struct alignas(64) Line {
        uint8_t bytes[64] = {};
    };
    std::vector<Line> lines_;
    size_t bytes_;
};

struct Case {
    std::string op;
    std::vector<int32_t> ints;
    std::vector<float> floats;
    std::vector<Array> arrays;

    const float* numbers(size_t i) const { return arrays.at(i).as<float>(); }
    int rows(size_t i, int cols) const {
        return static_cast<int>(arrays.at(i).size() / sizeof(float) / static_cast<size_t>(cols));
    }
};

static size_t index(int i) { return static_cast<size_t>(i); }

template <class T>
static T read(std::istream& in) {
    T value;
    if (!in.read(reinterpret_cast<char*>(&value), sizeof value)) throw std::runtime_error("the cases end early");
    return value;
}

static std::vector<Case> read_cases(std::istream& in) {
    std::vector<Case> cases;
    while (in.peek() != EOF) {
        Case c;
        c.op.resize(index(read<int32_t>(in)));
        c.ints.resize(index(read<int32_t>(in)));
        c.floats.resize(index(read<int32_t>(in)));
        const int arrays = read<int32_t>(in);
        for (char& letter : c.op) letter = read<char>(in);
        for (int32_t& number : c.ints) number = read<int32_t>(in);
        for (float& number : c.floats) number = read<float>(in);
        for (int i = 0; i < arrays; i++) {
            const auto size = static_cast<size_t>(read<int64_t>(in));
            c.arrays.emplace_back(size);
            in.read(c.arrays.back().as<char>(), static_cast<std::streamsize>(size));
        }
        cases.push_back(std::move(c));
    }
    return cases;
}

static Bytes bytes_of(const void* data, size_t size) {
    return Bytes(static_cast<const uint8_t*>(data), static_cast<const uint8_t*>(data) + size);
}

// fn(row) of each row of array 0, into a row as wide
template <class Fn>
static Bytes each_row(const Case& c, int cols, Fn fn) {
    std::vector<float> out(c.arrays.at(0).size() / sizeof(float));
    for (int r = 0; r < c.rows(0, cols); r++) fn(index(r) * index(cols), out.data() + index(r) * index(cols));
    return bytes_of(out.data(), out.size() * sizeof(float));
}

using BinaryRow = void (*)(const float*, const float*, int, float*);
static Bytes binary(const Case& c, BinaryRow kernel) {
    const int cols = c.ints.at(0);
    return each_row(c, cols, [&](size_t at, float* out) { kernel(c.numbers(0) + at, c.numbers(1) + at, cols, out); });
}

using ScaledRow = void (*)(const float*, float, int, float*);
static Bytes scaled(const Case& c, ScaledRow kernel) {
    const int cols = c.ints.at(0);
    return each_row(c, cols, [&](size_t at, float* out) { kernel(c.numbers(0) + at, c.floats.at(0), cols, out); });
}

static Bytes add(const KernelTable& k, const Case& c) { return binary(c, k.add); }
static Bytes silu_mul(const KernelTable& k, const Case& c) { return binary(c, k.silu_mul); }
static Bytes gelu_mul(const KernelTable& k, const Case& c) { return binary(c, k.gelu_mul); }
static Bytes scale(const KernelTable& k, const Case& c) { return scaled(c, k.scale); }
static Bytes softcap(const KernelTable& k, const Case& c) { return scaled(c, k.softcap); }

static Bytes rms_norm(const KernelTable& k, const Case& c) {
    const int cols = c.ints.at(0), run = c.ints.at(1);
    return each_row(c, cols, [&](size_t at, float* out) {
        k.rms_norm(c.numbers(0) + at, c.numbers(1), cols, run, c.floats.at(0), out);
    });
}

static Bytes layer_norm(const KernelTable& k, const Case& c) {
    const int cols = c.ints.at(0);
    const float* bias = c.arrays.size() > 2 ? c.numbers(2) : nullptr;
    return each_row(c, cols, [&](size_t at, float* out) {
        k.layer_norm(c.numbers(0) + at, c.numbers(1), bias, cols, c.floats.at(0), out);
    });
}

using UnaryRow = void (*)(const float*, int, float*);
static Bytes unary(const Case& c, UnaryRow kernel) {
    const int cols = c.ints.at(0);
    return each_row(c, cols, [&](size_t at, float* out) { kernel(c.numbers(0) + at, cols, out); });
}
static Bytes silu(const KernelTable& k, const Case& c) { return unary(c, k.silu); }
static Bytes gelu(const KernelTable& k, const Case& c) { return unary(c, k.gelu); }

static Bytes rope(const KernelTable& k, const Case& c) {
    const int cols = c.ints.at(0), head_dim = c.ints.at(1), rotated = c.ints.at(2);
    return each_row(c, cols, [&](size_t at, float* out) {
        k.rope(c.numbers(0) + at, c.numbers(1), cols, head_dim, rotated, c.ints.at(3), out);
    });
}

// [chunks][tokens], as the matmul takes them
static Array quantized(const ActKernels& k, const float* x, int tokens, int cols) {
    const Array blocks(k.bytes * (index(tokens) * index((cols + kChunk - 1) / kChunk) + kActPadding));
    for (int t = 0; t < tokens; t++)
        k.quantize(x + index(t) * index(cols), cols, blocks.as<uint8_t>() + k.bytes * index(t), index(tokens));
    return blocks;
}
static Bytes quantize(const KernelTable& k, const Case& c) {
    const int cols = c.ints.at(0);
    const Array blocks = quantized(k.acts[0], c.numbers(0), c.rows(0, cols), cols);
    return bytes_of(blocks.as<uint8_t>(), blocks.size());
}

static const FormatKernels& format(const KernelTable& k, int type) {
    for (int i = 0; i < k.format_count; i++)
        if (k.formats[i].type == type) return k.formats[i];
    throw std::runtime_error("no kernel for tensor type " + std::to_string(type));
}

static Bytes dequantize(const KernelTable& k, const Case& c) {
    const FormatKernels& f = format(k, c.ints.at(0));
    const int cols = c.ints.at(1);
    const size_t row_bytes = index(cols / f.block_weights * f.block_bytes);
    std::vector<float> out;
    for (size_t at = 0; at < c.arrays.at(0).size(); at += row_bytes) {
        out.resize(out.size() + index(cols));
        f.dequantize(c.arrays[0].as<uint8_t>() + at, cols, out.data() + out.size() - index(cols));
    }
    return bytes_of(out.data(), out.size() * sizeof(float));
}

static Bytes linear(const KernelTable& k, const Case& c) {
    const FormatKernels& f = format(k, c.ints.at(0));
    const int rows = c.ints.at(1), cols = c.ints.at(2), tokens = c.rows(1, cols), groups = (rows + kGroup - 1) / kGroup;
    size_t group_bytes = 0;
    for (int i = 0; i < cols; i += kChunk) group_bytes += f.chunk_bytes(std::min(kChunk, cols - i));
    const Array packed(group_bytes * index(groups));
    uint8_t* out = packed.as<uint8_t>();
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < cols; i += kChunk) {
            const uint8_t* file_rows[kGroup];
            for (int r = 0; r < kGroup; r++) {
                const int row = g * kGroup + r;
                const int block = row * (cols / f.block_weights) + i / f.block_weights;
                file_rows[r] =
                    row < rows ? c.arrays.at(0).as<uint8_t>() + index(block) * index(f.block_bytes) : nullptr;
            }
            f.pack(file_rows, std::min(kChunk, cols - i), out);
            out += f.chunk_bytes(std::min(kChunk, cols - i));
        }
    const PackedMatrix weight = {rows, cols, group_bytes, packed.as<uint8_t>()};
    const Array scratch(k.scratch_bytes);
    Array acts(1);
    for (int i = 0; i < k.act_count; i++)
        if (k.acts[i].group == f.act_group) acts = quantized(k.acts[i], c.numbers(1), tokens, cols);
    std::vector<float> y(index(tokens) * index(rows));
    LinearArgs args = {};
    args.weight = &weight;
    args.acts = acts.as<uint8_t>();
    args.act_stride = index(tokens);
    args.x = c.numbers(1);
    args.x_stride = index(cols);
    args.tokens = tokens;
    args.bias = c.arrays.size() > 2 ? c.numbers(2) : nullptr;
    args.out = y.data();
    args.out_stride = index(rows);
    args.scratch = scratch.as<uint8_t>();
    f.linear(args, 0, groups);
    return bytes_of(y.data(), y.size() * sizeof(float));
}

// One sequence, its blocks in descending order; tiles of `together` tokens and all heads of a key head.
static Bytes attend(const KernelTable& k, const Case& c) {
    const int heads = c.ints.at(0), kv_heads = c.ints.at(1), head_dim = c.ints.at(2), together = c.ints.at(4);
    const int tokens = c.rows(0, heads * head_dim), blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    const auto key_type = static_cast<CacheType>(c.ints.at(5)), value_type = static_cast<CacheType>(c.ints.at(6));
    const size_t keys = index(kv_heads) * key_bytes(key_type, head_dim);
    const size_t values = index(kv_heads) * value_bytes(value_type, head_dim);
    const Array cache((keys + values) * index(blocks)), scratch(k.scratch_bytes);
    std::vector<int32_t> table;
    for (int b = 0; b < blocks; b++) table.push_back(blocks - 1 - b);
    for (int t = 0; t < tokens; t++) {
        uint8_t* block = cache.as<uint8_t>() + index(table[index(t / kBlockTokens)]) * (keys + values);
        const size_t at = index(t) * index(kv_heads * head_dim);
        k.store_kv(c.numbers(1) + at, c.numbers(2) + at, kv_heads, head_dim, t % kBlockTokens, {key_type, block},
                   {value_type, block + keys});
    }
    std::vector<float> out(index(tokens) * index(heads * head_dim));
    AttentionArgs args = {};
    args.q = c.numbers(0);
    args.out = out.data();
    args.row_stride = index(heads * head_dim);
    args.keys = {key_type, cache.as<uint8_t>()};
    args.values = {value_type, cache.as<uint8_t>() + keys};
    args.block_stride = keys + values;
    args.block_table = table.data();
    args.context = args.new_tokens = tokens;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_dim = head_dim;
    args.scale = c.floats.at(0);
    args.softcap = c.floats.at(1);
    args.window = c.ints.at(3);
    args.both_ways = c.ints.at(7) != 0;
    args.slopes = c.arrays.size() > 3 ? c.numbers(3) : nullptr;
    args.scratch = scratch.as<uint8_t>();
    const int shared = heads / kv_heads;
    for (int t = 0; t < tokens; t += together)
        for (int h = 0; h < heads; h += shared) k.attend(args, t, std::min(t + together, tokens), h, h + shared);
    Bytes found = bytes_of(out.data(), out.size() * sizeof(float));
    found.insert(found.end(), cache.as<uint8_t>(), cache.as<uint8_t>() + cache.size());
    return found;
}

static const std::map<std::string, Bytes (*)(const KernelTable&, const Case&)> kOps = {
    {"add", add},
    {"silu_mul", silu_mul},
    {"gelu_mul", gelu_mul},
    {"scale", scale},
    {"softcap", softcap},
    {"rms_norm", rms_norm},
    {"rope", rope},
    {"quantize", quantize},
    {"linear", linear},
    {"attend", attend},
    {"dequantize", dequantize},
    {"layer_norm", layer_norm},
    {"silu", silu},
    {"gelu", gelu},
};

}  // namespace corral

int main(int count, char** words) {
    using namespace corral;
    for (const KernelTable* table : available_isas()) puts(table->name);
    if (count != 3) return count == 1 ? 0 : 2;
    std::ifstream in(words[1], std::ios::binary);
    std::ofstream out(words[2], std::ios::binary);
    const std::vector<Case> cases = read_cases(in);
    for (const KernelTable* table : available_isas())
        for (const Case& c : cases) {
            const Bytes found = kOps.at(c.op)(*table, c);
            const auto size = static_cast<int64_t>(found.size());
            out.write(reinterpret_cast<const char*>(&size), sizeof size);
            out.write(reinterpret_cast<const char*>(found.data()), static_cast<std::streamsize>(found.size()));
        }
    return out.flush() ? 0 : 1;
}
