// Which ISA variants were built, and which of them this CPU can run.
#include "program.h"

namespace corral {

#define CORRAL_VARIANT(name)         \
    namespace name {                 \
    extern const KernelTable kTable; \
    }
#include "isa/variants.def"

const std::vector<const KernelTable*>& available_isas() {
    static const std::vector<const KernelTable*> tables = [] {
        std::vector<const KernelTable*> found;
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx2 =
            __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        if (avx512 && __builtin_cpu_supports("avx512vnni")) found.push_back(&avx512vnni::kTable);
        if (avx512) found.push_back(&avx512::kTable);
        if (avx2) found.push_back(&avx2::kTable);
#endif
        found.push_back(&scalar::kTable);
        return found;
    }();
    return tables;
}

}  // namespace corral
