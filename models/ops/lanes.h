// Floats, W at a time: GCC and Clang vector extensions, or plain scalars where LANES is 1, as it is on a GPU.
//
// Only what the two forms spell differently is defined here; arithmetic, comparisons and `a > b ? a : b` read alike.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#ifdef __CUDACC__
#define LANES 1
#define DEVICE __device__
#define INLINE static __device__ __forceinline__
#define SINGLE_COPY INLINE  // cuda.cu calls it in one place
#else
#define DEVICE
#define INLINE static inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))  // of a lambda
#ifdef __clang__
#define SINGLE_COPY static __attribute__((noinline))
#else
#define SINGLE_COPY static __attribute__((noipa))  // GCC clones what is merely not inlined
#endif
#endif

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

// Vectors need no alignment: rows of N floats start anywhere.
#if LANES == 1
INLINE vf load(const float *p) { return *p; }
INLINE void store(float *p, vf a) { *p = a; }
#else
INLINE vf load(const float *p) {
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}

INLINE void store(float *p, vf a) { memcpy(p, &a, sizeof a); }
#endif

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

#ifndef __CUDACC__
// Two neighbouring floats each, as one number in memory.
struct Pair {
    vf first, second;
};

INLINE Pair gather_pairs(const uint64_t *p, vu index) {
#if LANES == 16 && defined(__AVX512F__)
    __m512i lanes = bits<__m512i>(index);
    __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(lanes), p, 8);
    __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(lanes, 1), p, 8);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return {bits<vf>(_mm512_permutex2var_epi32(low, even, high)), bits<vf>(_mm512_permutex2var_epi32(low, odd, high))};
#else
    vq pair{};
    for (int j = 0; j < W; j++) {
        uint64_t two;
        memcpy(&two, p + get_lane(index, j), sizeof two);
        set_lane(pair, j, two);
    }
    return {bits<vf>(low_half(pair)), bits<vf>(high_half(pair))};
#endif
}

typedef float float2 __attribute__((vector_size(8)));

// Lanes a0 b0 a1 b1 ..., the first half and the second half of them. GCC needs to be told that this is a shuffle.
INLINE Pair interleave(vf a, vf b) {
    Pair both{};
#if LANES == 1
    both = {a, b};
#elif defined(__clang__)
    for (int j = 0; j < W; j++) {
        both.first[j] = (j % 2 ? b : a)[j / 2];
        both.second[j] = (j % 2 ? b : a)[(W + j) / 2];
    }
#else
    vi first{};
    for (int j = 0; j < W; j++) first[j] = j / 2 + j % 2 * W;
    both = {__builtin_shuffle(a, b, first), __builtin_shuffle(a, b, first + W / 2)};
#endif
    return both;
}
#endif

INLINE vf splat(float a) { return a - vf{}; }
INLINE vf magnitude(vf a) { return bits<vf>(bits<vu>(a) & 0x7fffffffu); }

// b where one of them is NaN.
#if LANES == 16 && defined(__AVX512F__)  // compilers make two instructions of a comparison
INLINE vf larger(vf a, vf b) { return bits<vf>(_mm512_max_ps(bits<__m512>(a), bits<__m512>(b))); }
INLINE vf smaller(vf a, vf b) { return bits<vf>(_mm512_min_ps(bits<__m512>(a), bits<__m512>(b))); }
#elif LANES == 8 && defined(__AVX2__)
INLINE vf larger(vf a, vf b) { return bits<vf>(_mm256_max_ps(bits<__m256>(a), bits<__m256>(b))); }
INLINE vf smaller(vf a, vf b) { return bits<vf>(_mm256_min_ps(bits<__m256>(a), bits<__m256>(b))); }
#else
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
INLINE vf smaller(vf a, vf b) { return a < b ? a : b; }
#endif
INLINE vf mix(vf a, vf b, vf t) { return a + (b - a) * t; }

INLINE float sum(vf a) {
    float total = 0;
    for (int j = 0; j < W; j++) total += get_lane(a, j);
    return total;
}
