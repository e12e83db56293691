// The Python module corral._native: build a Program, step it. All decisions are made in Python, before the first step.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "candidates.h"
#include "program.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace corral {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntTable = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using PackedBytes = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>, nb::c_contig>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>, nb::c_contig>;

const FormatKernels& expect_shape(int type, int rows, int cols) {
    const KernelTable& table = *available_isas().front();
    for (int i = 0; i < table.format_count; i++) {
        const FormatKernels& f = table.formats[i];
        if (f.type != type) continue;
        if (rows <= 0 || cols <= 0 || cols % f.block_weights)
            throw std::invalid_argument("a matrix of " + std::to_string(rows) + " x " + std::to_string(cols) +
                                        " in blocks of " + std::to_string(f.block_weights));
        return f;
    }
    throw std::invalid_argument("no kernel for tensor type " + std::to_string(type));
}

// The bytes that rows x cols of a type take in the file, checked against what was handed over.
void expect_block(const Program& p, int block) {
    if (block < 0 || block >= p.block_count()) throw nb::value_error("a block outside the pool");
}

void expect_bytes(int type, int rows, int cols, const Bytes& data) {
    const FormatKernels& f = expect_shape(type, rows, cols);
    if (data.size() != size_t(rows) * size_t(cols / f.block_weights) * size_t(f.block_bytes))
        throw std::invalid_argument("matrix data of " + std::to_string(data.size()) + " bytes don't fit its shape");
}

Rows rows_named(const std::string& name) {
    if (name == "T") return Rows::kTokens;
    if (name == "S") return Rows::kLogits;
    throw std::invalid_argument("rows are 'T' or 'S', not '" + name + "'");
}

CacheType cache_type_named(const std::string& name) {
    if (name == "f32") return CacheType::kF32;
    if (name == "f16") return CacheType::kF16;
    if (name == "q8_0") return CacheType::kQ8_0;
    throw std::invalid_argument("cache types are 'f32', 'f16' or 'q8_0', not '" + name + "'");
}

IndexedBy index_named(const std::string& name) {
    if (name == "token") return IndexedBy::kToken;
    if (name == "position") return IndexedBy::kPosition;
    if (name == "nothing") return IndexedBy::kNothing;
    throw std::invalid_argument("a table is indexed by 'token', 'position' or 'nothing', not '" + name + "'");
}

bool is_gelu(const std::string& act) {
    if (act != "silu" && act != "gelu") throw std::invalid_argument("no activation '" + act + "'");
    return act == "gelu";
}

// A wrong batch is a bug of the caller; it must not become a wild read.
Batch checked(const Program& p, const Ints& tokens, const Ints& positions, const Ints& query_start,
              const Ints& context_len, const IntTable& block_tables, const Ints& logit_rows) {
    const size_t count = context_len.size();
    auto expect = [](bool right, const char* what) {
        if (!right) throw std::invalid_argument(std::string("batch: ") + what);
    };
    expect(tokens.size() <= size_t(p.most_tokens()), "more tokens than the program was built for");
    expect(logit_rows.size() <= size_t(p.most_logit_rows()), "more logit rows than the program was built for");
    expect(positions.size() == tokens.size(), "as many positions as tokens are wanted");
    expect(query_start.size() == count + 1 && block_tables.shape(0) == count, "sequence arrays of different lengths");
    expect(query_start(0) == 0 && size_t(query_start(count)) == tokens.size(), "query_start must span the tokens");
    for (size_t s = 0; s < count; s++) {
        // 64 bits: the differences of any two numbers fit
        const int64_t first = query_start(s), end = query_start(s + 1), news = end - first, context = context_len(s);
        expect(news > 0 && end <= int64_t(tokens.size()) && context >= news,
               "a sequence needs new tokens, counted in its context");
        const int64_t blocks = (context + kBlockTokens - 1) / kBlockTokens;
        expect(size_t(blocks) <= block_tables.shape(1), "a block table shorter than its context");
        for (int64_t b = 0; b < blocks; b++)
            expect(block_tables(s, b) >= 0 && block_tables(s, b) < p.block_count(), "a block outside the pool");
        for (int64_t t = 0; t < news; t++)
            expect(positions(first + t) == context - news + t, "positions must end the context");
    }
    const int vocabulary = p.rows_indexed(IndexedBy::kToken), places = p.rows_indexed(IndexedBy::kPosition);
    for (size_t i = 0; i < tokens.size(); i++) {
        expect(positions(i) < places, "a position outside the table of positions");
        expect(tokens(i) >= 0 && tokens(i) < vocabulary, "a token outside the vocabulary");
    }
    for (size_t i = 0; i < logit_rows.size(); i++)
        expect(logit_rows(i) >= 0 && size_t(logit_rows(i)) < tokens.size(), "a logit row outside the tokens");
    return {
        tokens.data(),     positions.data(),   query_start.data(), context_len.data(),         block_tables.data(),
        logit_rows.data(), int(tokens.size()), int(count),         int(block_tables.shape(1)), int(logit_rows.size())};
}

// The passes over a row of logits of one ISA variant.
struct LogitKernels {
    const KernelTable* table;
    explicit LogitKernels(const std::string& isa) : table(find_isa(isa)) {}
};

size_t logit_blocks(size_t n) { return (n + kLogitBlock - 1) / kLogitBlock; }

template <class Row, class Maxima>
void expect_maxima(const Row& row, const Maxima& maxima) {
    if (row.size() == 0 || row.size() > size_t{1} << 30) throw std::invalid_argument("a row of logits without logits");
    if (maxima.size() != logit_blocks(row.size())) throw std::invalid_argument("maxima of another number of blocks");
}
void expect_ids(const Floats& row, const Ints& ids) {
    for (size_t i = 0; i < ids.size(); i++)
        if (ids(i) < 0 || size_t(ids(i)) >= row.size()) throw std::invalid_argument("an id outside the row");
}

}  // namespace
}  // namespace corral

// clang-format off: one binding reads best as one line of arguments, its body, and one line of their names.
NB_MODULE(_native, m) {
    using namespace corral;
    m.doc() = "Native executor of corral. See corral/program/native.py, its only user.";
    nb::set_leak_warnings(false);  // kernels are kept for as long as the interpreter lives
    m.attr("BLOCK_TOKENS") = kBlockTokens;
    m.attr("LOGIT_BLOCK") = kLogitBlock;
    m.attr("ACTIVATION_GROUP") = kActGroup;
    m.attr("MOST_HEAD_DIM") = kMostHeadDim;
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const KernelTable* table : available_isas()) names.push_back(table->name);
        return names;
    }, "Names of the ISA variants this CPU can run, best first.");
    m.def("formats", [](const std::string& isa) {
        std::vector<std::tuple<int, int, int, int, int>> rows;
        const KernelTable& table = *find_isa(isa);
        for (int i = 0; i < table.format_count; i++) {
            const FormatKernels& f = table.formats[i];
            rows.emplace_back(f.type, f.block_weights, f.block_bytes, f.act_group,
                              static_cast<int>(f.chunk_bytes(kChunk) / kGroup));
        }
        return rows;
    }, "isa"_a, "(ggml type, weights a block, bytes a block, int8 activations that share a scale or 0, packed bytes of 256 weights) "
               "of each format.");

    m.def(
        "measure_limits",
        [](const std::string& isa, int threads, size_t bytes) {
            nb::gil_scoped_release release;
            const Limits limits = measure_limits(isa, threads, bytes);
            return std::make_pair(limits.dots, limits.bytes);
        },
        "isa"_a, "threads"_a, "bytes"_a, "(int8 multiply-adds a second, bytes read a second) that the threads reach.");

    nb::class_<LogitKernels>(m, "LogitKernels", "Passes over rows of logits. Their twin is corral.sampling.kernels.NumpyKernels.")
        .def(nb::init<const std::string&>(), "isa"_a)
        .def("scan", [](const LogitKernels& k, Floats row, FloatsOut maxima) {
            expect_maxima(row, maxima);
            nb::gil_scoped_release release;
            return k.table->scan_logits(row.data(), int(row.size()), maxima.data());
        }, "row"_a.noconvert(), "maxima"_a.noconvert())
        .def("mask", [](const LogitKernels& k, Floats row, Words allowed, FloatsOut out, FloatsOut maxima) {
            expect_maxima(row, maxima);
            if (allowed.size() * 32 < row.size() || out.size() != row.size())
                throw std::invalid_argument("a mask or a result of another size than the row");
            nb::gil_scoped_release release;
            k.table->mask_logits(row.data(), allowed.data(), int(row.size()), out.data(), maxima.data());
        }, "row"_a.noconvert(), "allowed"_a.noconvert(), "out"_a.noconvert(), "maxima"_a.noconvert())
        .def("exp_sum", [](const LogitKernels& k, Floats row, float largest, float scale) {
            nb::gil_scoped_release release;
            return k.table->exp_sum_logits(row.data(), int(row.size()), largest, scale, nullptr);
        }, "row"_a.noconvert(), "largest"_a, "scale"_a)
        .def("exp_sums", [](const LogitKernels& k, Floats row, float largest, float scale) {
            nb::gil_scoped_release release;
            double weighted;
            const double sum = k.table->exp_sum_logits(row.data(), int(row.size()), largest, scale, &weighted);
            return std::make_pair(sum, weighted);
        }, "row"_a.noconvert(), "largest"_a, "scale"_a)
        .def("moment", [](const LogitKernels& k, Floats row, float shift, int power) {
            nb::gil_scoped_release release;
            int64_t count;
            const double sum = k.table->moment_logits(row.data(), int(row.size()), shift, power, &count);
            return std::make_pair(sum, count);
        }, "row"_a.noconvert(), "shift"_a, "power"_a)
        .def("top", [](const LogitKernels&, Floats row, Floats maxima, IntsOut ids, FloatsOut values) {
            expect_maxima(row, maxima);
            if (ids.size() == 0 || ids.size() > row.size() || values.size() != ids.size())
                throw std::invalid_argument("as many ids as values are wanted, from one to a row of them");
            nb::gil_scoped_release release;
            top_logits(row.data(), int(row.size()), maxima.data(), int(ids.size()), ids.data(), values.data());
        }, "row"_a.noconvert(), "maxima"_a.noconvert(), "ids"_a.noconvert(), "values"_a.noconvert())
        .def("count_from", [](const LogitKernels&, Floats row, Floats maxima, float bound) {
            expect_maxima(row, maxima);
            nb::gil_scoped_release release;
            return count_logits(row.data(), int(row.size()), maxima.data(), bound);
        }, "row"_a.noconvert(), "maxima"_a.noconvert(), "bound"_a)
        .def("refresh", [](const LogitKernels&, Floats row, Ints ids, FloatsOut maxima) {
            expect_maxima(row, maxima);
            expect_ids(row, ids);
            refresh_maxima(row.data(), int(row.size()), ids.data(), ids.size(), maxima.data());
        }, "row"_a.noconvert(), "ids"_a.noconvert(), "maxima"_a.noconvert());

    nb::class_<Program>(m, "Program")
        .def(nb::init<const std::string&, int>(), "isa"_a, "threads"_a)
        .def("add_matrix", [](Program& p, int type, int rows, int cols) {
            expect_shape(type, rows, cols);
            return p.add_matrix(type, rows, cols);
        }, "type"_a, "rows"_a, "cols"_a, "A weight matrix; its rows come later.")
        .def("allocate_weights", &Program::allocate_weights, "Memory for all matrices, to be packed into.")
        .def("use_weights", [](Program& p, Bytes packed) {
            if (packed.size() != p.packed_bytes())
                throw std::invalid_argument("packed weights of " + std::to_string(packed.size()) + " bytes, expected " +
                                            std::to_string(p.packed_bytes()));
            p.use_weights(packed.data());
        }, "packed"_a, nb::keep_alive<1, 2>(), "Weights that were packed before, instead of allocating and packing them.")
        .def("pack_rows", [](Program& p, int matrix, int first, int count, Bytes data) {
            if (count < 0 || data.size() != p.file_bytes(matrix, count))
                throw std::invalid_argument("matrix data of " + std::to_string(data.size()) + " bytes are not " +
                                            std::to_string(count) + " rows");
            nb::gil_scoped_release release;
            p.pack_rows(matrix, first, count, data.data());
        }, "matrix"_a, "first"_a, "count"_a, "data"_a, "Pack rows of a matrix, whole groups of 16; the data may go afterwards.")
        .def("packed_weights", [](Program& p) {
            return PackedBytes(p.packed_weights(), {p.packed_bytes()}, nb::find(&p));
        }, "All matrices as they are packed.")
        .def("add_table", [](Program& p, int type, int rows, int cols, Bytes data, const std::string& by) {
            expect_bytes(type, rows, cols, data);
            return p.add_table(type, rows, cols, data.data(), index_named(by));
        }, "type"_a, "rows"_a, "cols"_a, "data"_a, "by"_a, nb::keep_alive<1, 5>(),
           "An embedding table, read from the data.")
        .def("add_vector", [](Program& p, Floats data) { return p.add_vector(data.data(), int(data.size())); }, "data"_a)
        .def("add_kv_layer", [](Program& p, int kv_heads, int head_dim, const std::string& keys, const std::string& values) {
            return p.add_kv_layer(kv_heads, head_dim, cache_type_named(keys), cache_type_named(values));
        }, "kv_heads"_a, "head_dim"_a, "keys"_a, "values"_a, "A layer of the KV cache; types are 'f32', 'f16' or 'q8_0'.")
        .def("add_buffer", [](Program& p, const std::string& rows, int cols, int slot) {
            return p.add_buffer(rows_named(rows), cols, slot);
        }, "rows"_a, "cols"_a, "slot"_a)
        .def("add_acts", [](Program& p, const std::string& rows, int cols, int slot, int group) {
            return p.add_acts(rows_named(rows), cols, slot, group);
        }, "rows"_a, "cols"_a, "slot"_a, "group"_a, "A place for quantized activations; slots are apart from the buffers'.")
        .def("embed", [](Program& p, int out, int table, float scale) {
            p.add_row_op(Rows::kTokens, EmbedOp{out, table, scale});
        }, "out"_a, "table"_a, "scale"_a)
        .def("rms_norm", [](Program& p, const std::string& rows, int out, int x, int weight, float eps) {
            p.add_row_op(rows_named(rows), NormOp{out, x, weight, eps});
        }, "rows"_a, "out"_a, "x"_a, "weight"_a, "eps"_a)
        .def("layer_norm", [](Program& p, const std::string& rows, int out, int x, int weight, int bias, float eps) {
            p.add_row_op(rows_named(rows), LayerNormOp{out, x, weight, bias, eps});
        }, "rows"_a, "out"_a, "x"_a, "weight"_a, "bias"_a, "eps"_a)
        .def("rope_table", [](Program& p, int out, std::vector<double> inv_freq, float magnitude) {
            p.add_row_op(Rows::kTokens, RopeTableOp{out, std::move(inv_freq), magnitude});
        }, "out"_a, "inv_freq"_a, "magnitude"_a)
        .def("rope", [](Program& p, int out, int x, int table, int head_dim, bool interleaved) {
            p.add_row_op(Rows::kTokens, RopeOp{out, x, table, head_dim, interleaved});
        }, "out"_a, "x"_a, "table"_a, "head_dim"_a, "interleaved"_a)
        .def("add", [](Program& p, const std::string& rows, int out, int a, int b) {
            p.add_row_op(rows_named(rows), AddOp{out, a, b});
        }, "rows"_a, "out"_a, "a"_a, "b"_a)
        .def("scale", [](Program& p, const std::string& rows, int out, int x, float factor) {
            p.add_row_op(rows_named(rows), ScaleOp{out, x, factor});
        }, "rows"_a, "out"_a, "x"_a, "factor"_a)
        .def("glu", [](Program& p, const std::string& rows, int out, int gate, int up, const std::string& act) {
            p.add_row_op(rows_named(rows), GluOp{out, gate, up, is_gelu(act)});
        }, "rows"_a, "out"_a, "gate"_a, "up"_a, "act"_a)
        .def("activate", [](Program& p, const std::string& rows, int out, int x, const std::string& act) {
            p.add_row_op(rows_named(rows), ActivateOp{out, x, is_gelu(act)});
        }, "rows"_a, "out"_a, "x"_a, "act"_a)
        .def("softcap", [](Program& p, const std::string& rows, int out, int x, float cap) {
            p.add_row_op(rows_named(rows), SoftCapOp{out, x, cap});
        }, "rows"_a, "out"_a, "x"_a, "cap"_a)
        .def("take_rows", [](Program& p, int out, int x) {
            p.add_row_op(Rows::kLogits, TakeRowsOp{out, x});
        }, "out"_a, "x"_a)
        .def("quantize", [](Program& p, const std::string& rows, int x, int acts) {
            p.add_row_op(rows_named(rows), QuantizeOp{x, acts});
        }, "rows"_a, "x"_a, "acts"_a)
        .def("store_kv", [](Program& p, int k, int v, int layer) {
            p.add_row_op(Rows::kTokens, StoreKvOp{k, v, layer});
        }, "k"_a, "v"_a, "layer"_a)
        .def("linear", [](Program& p, const std::string& rows, int x, std::vector<int> acts, std::vector<int> weights,
                          std::vector<int> biases, std::vector<int> outs) {
            p.add_stage(LinearStage{rows_named(rows), x, std::move(acts), std::move(weights), std::move(biases), std::move(outs)});
        }, "rows"_a, "x"_a, "acts"_a, "weights"_a, "biases"_a, "outs"_a)
        .def("attention", [](Program& p, int q, int out, int layer, int heads, float scale, float softcap, int window,
                             bool causal, int slopes) {
            p.add_stage(AttentionStage{q, out, layer, heads, scale, softcap, window, causal, slopes});
        }, "q"_a, "out"_a, "layer"_a, "heads"_a, "scale"_a, "softcap"_a, "window"_a, "causal"_a, "slopes"_a)
        .def("finish", &Program::finish, "logits"_a, "tokens"_a, "logit_rows"_a)
        .def("allocate_blocks", &Program::allocate_blocks, "blocks"_a)
        .def("read_block", [](Program& p, int block) {
            expect_block(p, block);
            return nb::bytes(p.block_data(block), p.kv_block_bytes());
        }, "block"_a, "Keys and values of all layers in a KV block.")
        .def("write_block", [](Program& p, int block, Bytes data) {
            expect_block(p, block);
            if (data.size() != p.kv_block_bytes()) throw nb::value_error("a block of another size");
            std::memcpy(p.block_data(block), data.data(), data.size());
        }, "block"_a, "data"_a)
        .def("step", [](Program& p, Ints tokens, Ints positions, Ints query_start, Ints context_len,
                        IntTable block_tables, Ints logit_rows) {
            const Batch batch = checked(p, tokens, positions, query_start, context_len, block_tables, logit_rows);
            const float* logits;
            {
                nb::gil_scoped_release release;
                logits = p.step(batch);
            }
            return Logits(const_cast<float*>(logits), {logit_rows.size(), size_t(p.vocab_size())}, nb::find(&p));
        }, "tokens"_a.noconvert(), "positions"_a.noconvert(), "query_start"_a.noconvert(), "context_len"_a.noconvert(),
           "block_tables"_a.noconvert(), "logit_rows"_a.noconvert(),
           "Run every stage without the GIL; logits [S, V], overwritten by the next step.")
        .def_prop_ro("packed_bytes", &Program::packed_bytes)
        .def_prop_ro("buffer_bytes", &Program::buffer_bytes)
        .def_prop_ro("kv_bytes", &Program::kv_bytes)
        .def_prop_ro("kv_block_bytes", &Program::kv_block_bytes)
        .def_prop_ro("isa", &Program::isa)
        .def_prop_ro("threads", &Program::threads);
}
// clang-format on
