// Which ISA variants were built, and which of them this CPU can run.
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "program.h"

namespace corral {

#define CORRAL_VARIANT(name, runs)   \
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

// Linux lends the tile registers to a process that asks (the kernel's Documentation/arch/x86/xstate.rst).
static bool may_use_tiles() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Cpu {
    bool avx2, avxvnni, avx512, avx512vnni, amx;
    Cpu() {
        __builtin_cpu_init();
        avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && Cpuid(1, 0).c >> 29 & 1;  // F16C
        avxvnni = Cpuid(7, 1).a >> 4 & 1;
        avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        avx512vnni = __builtin_cpu_supports("avx512vnni");
        const unsigned d = Cpuid(7, 0).d;
        amx = d >> 24 & 1 && d >> 25 & 1 && may_use_tiles();  // AMX-TILE, AMX-INT8
    }
};
#elif defined(__aarch64__)
struct Cpu {
    bool dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP, i8mm = getauxval(AT_HWCAP2) & HWCAP2_I8MM;
};
#else
struct Cpu {};
#endif

const std::vector<const KernelTable*>& available_isas() {
    static const std::vector<const KernelTable*> tables = [] {
        std::vector<const KernelTable*> found;
        [[maybe_unused]] const Cpu cpu;
#define CORRAL_VARIANT(name, runs) \
    if (runs) found.push_back(&name::kTable);
#include "isa/variants.def"
        return found;
    }();
    return tables;
}

}  // namespace corral
