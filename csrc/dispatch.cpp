// Which ISA variants were built, and which of them this CPU can run.
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "program.h"

namespace corral {

#define CORRAL_VARIANT(name)         \
    namespace name {                 \
    extern const KernelTable kTable; \
    }
#include "isa/variants.def"

#if defined(__x86_64__)
// What not every compiler has a name for in __builtin_cpu_supports. Both are of use only beside AVX2, which that asks the system for.
struct Cpuid {
    unsigned a = 0, b = 0, c = 0, d = 0;
    Cpuid(unsigned leaf, unsigned part) { __get_cpuid_count(leaf, part, &a, &b, &c, &d); }
};
static bool has_f16c() { return Cpuid(1, 0).c >> 29 & 1; }
static bool has_avxvnni() { return Cpuid(7, 1).a >> 4 & 1; }
#endif

const std::vector<const KernelTable*>& available_isas() {
    static const std::vector<const KernelTable*> tables = [] {
        std::vector<const KernelTable*> found;
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
        const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        if (avx512 && __builtin_cpu_supports("avx512vnni")) found.push_back(&avx512vnni::kTable);
        if (avx2 && has_avxvnni()) found.push_back(&avxvnni::kTable);
        if (avx512) found.push_back(&avx512::kTable);
        if (avx2) found.push_back(&avx2::kTable);
#elif defined(__aarch64__)
        const bool dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP, i8mm = getauxval(AT_HWCAP2) & HWCAP2_I8MM;
        if (dot && i8mm) found.push_back(&neoni8mm::kTable);
        if (dot) found.push_back(&neondot::kTable);
        found.push_back(&neon::kTable);
#endif
        found.push_back(&scalar::kTable);
        return found;
    }();
    return tables;
}

}  // namespace corral
