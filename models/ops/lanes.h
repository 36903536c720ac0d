// Floats, W at a time: GCC and Clang vector extensions, or plain scalars where LANES is 1.
//
// Only what the two forms spell differently is defined here; arithmetic, comparisons and `a > b ? a : b` read alike.
#pragma once
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#ifndef LANES
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4  // SSE, NEON
#endif
#endif

using i64 = int64_t;
constexpr int W = LANES;

#if LANES == 1
using vf = float;
using vi = int32_t;
using vu = uint32_t;
using vq = uint64_t;
INLINE vi truncate(vf a) { return (vi)a; }
INLINE vf to_float(vi a) { return (vf)a; }
INLINE vu low_half(vq a) { return (vu)a; }
INLINE vu high_half(vq a) { return (vu)(a >> 32); }
template <class V, class T> INLINE void set_lane(V &a, int, T value) { a = value; }
template <class V> INLINE auto get_lane(V a, int) { return a; }
#else
typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint64_t vq __attribute__((vector_size(8 * W)));
INLINE vi truncate(vf a) { return __builtin_convertvector(a, vi); }
INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
INLINE vu low_half(vq a) { return __builtin_convertvector(a, vu); }
INLINE vu high_half(vq a) { return __builtin_convertvector(a >> 32, vu); }
template <class V, class T> INLINE void set_lane(V &a, int j, T value) { a[j] = value; }
template <class V> INLINE auto get_lane(V a, int j) { return a[j]; }
#endif

template <class To, class From> INLINE To bits(From a) {
    To b;
    memcpy(&b, &a, sizeof b);
    return b;
}

// Addresses need no alignment: rows of N floats start anywhere.
INLINE vf load(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}

INLINE void store(float *p, vf a) { memcpy(p, &a, sizeof a); }

// The last lanes of a row may lie beyond it; they read as zero and are not written.
INLINE vf load_part(const float *p, i64 count) {
    if (count >= W) return load(p);
    vf a{};
    memcpy(&a, p, count * sizeof(float));
    return a;
}

INLINE void store_part(float *p, vf a, i64 count) {
    if (count >= W) return store(p, a);
    memcpy(p, &a, count * sizeof(float));
}

struct Point {
    vf x[3];
};

// Lanes of a feature-major array [3, N].
INLINE Point load_point(const float *p, i64 N, i64 count) {
    return {{load_part(p, count), load_part(p + N, count), load_part(p + 2 * N, count)}};
}

INLINE vf splat(float a) { return a - vf{}; }
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }   // b where a is NaN
INLINE vf smaller(vf a, vf b) { return a < b ? a : b; }  // b where a is NaN
INLINE vf magnitude(vf a) { return a < 0.f ? -a : a; }
INLINE vf mix(vf a, vf b, vf t) { return a + (b - a) * t; }

INLINE float sum(vf a) {
    float total = 0;
    for (int j = 0; j < W; j++) total += get_lane(a, j);
    return total;
}
