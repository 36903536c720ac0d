// Work shared among threads.
//
// torch's own OpenMP runtime does the threading where it has GOMP_parallel: a second pool would fight with torch's
// spinning one for the cores. Otherwise POSIX threads are started for each call.
#pragma once
#include <pthread.h>

#include "lanes.h"

typedef void (*OpenMP)(void (*work)(void *), void *context, unsigned n_threads, unsigned flags);
static OpenMP openmp = nullptr;

extern "C" __attribute__((visibility("default"))) void use_openmp(OpenMP run) { openmp = run; }

// While it lives, this thread takes numbers below 2^-126 for zero: they mean nothing here, where sigmoids fade out they
// are everywhere, and processors need a hundred times as long for them. The caller's arithmetic stays as it was.
class FlushSubnormals {
#if defined(__SSE__)
    static constexpr unsigned FLUSH = 0x8040;  // results to zero, and operands
    const unsigned before = __builtin_ia32_stmxcsr();

public:
    FlushSubnormals() { __builtin_ia32_ldmxcsr(before | FLUSH); }
    ~FlushSubnormals() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
    static constexpr uint64_t FLUSH = 1 << 24;
    const uint64_t before = get();

    static uint64_t get() {
        uint64_t state;
        asm volatile("mrs %0, fpcr" : "=r"(state));
        return state;
    }
    static void set(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state)); }

public:
    FlushSubnormals() { set(before | FLUSH); }
    ~FlushSubnormals() { set(before); }
#else
public:
    FlushSubnormals() {}
#endif
};

// Calls body(part) for every part in [0, n_parts). Which thread takes a part is left to chance, so whatever is summed
// must be kept per part and added up in order.
template <class Body> static void parallel(i64 n_threads, i64 n_parts, const Body &body) {
    struct Shared {
        const Body &body;
        const i64 n_parts;
        i64 next;
    } shared{body, n_parts, 0};
    auto work = [](void *context) {
        Shared &shared = *(Shared *)context;
        const FlushSubnormals flush;
        for (;;) {
            const i64 part = __atomic_fetch_add(&shared.next, 1, __ATOMIC_RELAXED);
            if (part >= shared.n_parts) return;
            shared.body(part);
        }
    };
    if (n_threads > n_parts) n_threads = n_parts;
    if (n_threads <= 1) return work(&shared);
    if (openmp) return openmp(work, &shared, (unsigned)n_threads, 0);

    constexpr int MOST = 256;
    pthread_t threads[MOST];
    int n_started = 0;
    struct Start {
        void (*work)(void *);
        void *context;
    } start{work, &shared};
    auto run = [](void *argument) -> void * {
        Start &start = *(Start *)argument;
        start.work(start.context);
        return nullptr;
    };
    while (n_started < n_threads - 1 && n_started < MOST && !pthread_create(&threads[n_started], nullptr, run, &start))
        n_started++;
    work(&shared);
    for (int i = 0; i < n_started; i++) pthread_join(threads[i], nullptr);
}
