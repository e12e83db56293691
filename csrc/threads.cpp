#include "threads.h"

namespace corral {

namespace {

constexpr int kSpins = 4000;  // some tens of microseconds

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void Gate::open() {
    value_.fetch_add(1, std::memory_order_release);
    value_.notify_all();
}

void Gate::wait_while(uint32_t old) const {
    for (int i = 0; i < kSpins; i++) {
        if (value_.load(std::memory_order_acquire) != old) return;
        relax();
    }
    while (value_.load(std::memory_order_acquire) == old) value_.wait(old, std::memory_order_acquire);
}

Team::Team(int threads) : threads_(threads < 1 ? 1 : threads) {
    for (int i = 1; i < threads_; i++) workers_.emplace_back([this, i] { work(i); });
}

Team::~Team() {
    stopping_ = true;
    start_.open();
    for (auto& worker : workers_) worker.join();
}

void Team::work(int index) {
    for (uint32_t seen = 0;;) {
        start_.wait_while(seen);
        seen++;
        if (stopping_) return;
        (*job_)(index);
        barrier();
    }
}

void Team::run(const std::function<void(int)>& fn) {
    job_ = &fn;
    if (threads_ > 1) start_.open();
    fn(0);
    barrier();
}

void Team::barrier() {
    if (threads_ == 1) return;
    const uint32_t phase = phase_.get();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.open();
    } else {
        phase_.wait_while(phase);
    }
}

}  // namespace corral
