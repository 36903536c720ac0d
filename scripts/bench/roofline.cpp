// What a core can do and no more: reads and updates at given places, a stream and multiply-adds, a thread at a time.
//
// Nothing is computed that anybody wants; results are returned only so that no compiler leaves the work out.
#include <stdint.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef float Pair __attribute__((vector_size(8)));

constexpr int CHAINS = 12;  // two units that take four cycles need eight results on their way

EXPORT float read(const Pair *table, const int32_t *places, int64_t count) {
    Pair sums[4] = {};
    for (int64_t i = 0; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++) sums[k] += table[places[i + k]];
    const Pair sum = sums[0] + sums[1] + sums[2] + sums[3];
    return sum[0] + sum[1];
}

EXPORT void update(Pair *table, const int32_t *places, int64_t count) {
    const Pair one = {1.0f, 1.0f};
    for (int64_t i = 0; i < count; i++) table[places[i]] += one;
}

EXPORT void stream(float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) a[i] = 0.5f * a[i] + b[i];
}

EXPORT float multiply_add(int64_t count) {
    vf sums[CHAINS], factor = {}, term = {};
    // Different in every chain, or the compiler computes one of them for all.
    for (int k = 0; k < CHAINS; k++) sums[k] = vf{} + (float)k;
    factor += 0.999f;
    term += 0.001f;
    for (int64_t i = 0; i < count; i += CHAINS * W)
        for (vf &sum : sums) sum = sum * factor + term;
    float total = 0;
    for (const vf &sum : sums)
        for (int lane = 0; lane < W; lane++) total += sum[lane];
    return total;
}
