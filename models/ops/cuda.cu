// The kernels for a GPU: a thread for every point and level, sample or ray, of the same mathematics as on a CPU.
//
// Arrays are feature-major float32 without gaps, arguments as in cpu.cpp but for the number of threads. Additions to a
// table happen in any order, so gradients differ by rounding from run to run. Threads of a block share nothing.
#include "kernels.h"
#include "rays.h"

constexpr int BLOCK = 256;  // threads of a block, as in cuda.py
constexpr int MOST_LEVELS = 64;
constexpr int WARP = 32;

#ifndef KERNEL  // tests compile this file for a CPU and define it beforehand
#define KERNEL(name, ...) extern "C" __global__ void __launch_bounds__(BLOCK) name(__VA_ARGS__)
#endif

INLINE i64 thread_index() { return blockIdx.x * (i64)BLOCK + threadIdx.x; }

struct Levels {
    Level level[MOST_LEVELS];
};

template <int F, bool WITH_JACOBIAN>
INLINE void encode_point(const Levels &levels, i64 N, const float *__restrict__ x, const float *__restrict__ table,
                         float *__restrict__ y, float *__restrict__ jacobian) {
    const i64 i = thread_index(), l = blockIdx.y;
    if (i >= N) return;
    const Level level = levels.level[l];
    const Cell cell = locate(level, load_point(x + i, N, 1));
    vf value[F], slope[F][3];
    interpolate<F, WITH_JACOBIAN>((const Entry<F> *)table + level.offset, cell, value, slope);
    for (int f = 0; f < F; f++) {
        const i64 row = l * F + f;
        y[row * N + i] = value[f];
        if (WITH_JACOBIAN)
            for (int c = 0; c < 3; c++) jacobian[(row * 3 + c) * N + i] = slope[f][c];
    }
}

template <int F, bool WITH_TANGENT>
INLINE void scatter_point(const Levels &levels, i64 N, const float *__restrict__ x, const float *__restrict__ d_y,
                          const float *__restrict__ tau, const float *__restrict__ u, float *__restrict__ d_table) {
    const i64 i = thread_index(), l = blockIdx.y;
    if (i >= N) return;
    const Level level = levels.level[l];
    const Cell cell = locate(level, load_point(x + i, N, 1));
    vf dy[F], taus[F], us[3];
    for (int f = 0; f < F; f++) {
        dy[f] = d_y[(l * F + f) * N + i];
        if (WITH_TANGENT) taus[f] = tau[(l * F + f) * N + i];
    }
    if (WITH_TANGENT)
        for (int c = 0; c < 3; c++) us[c] = u[c * N + i];
    // Padding lies in one place: thousands of additions of nothing to the same entries would wait for each other.
    bool is_nothing = true;
    for (int f = 0; f < F; f++) is_nothing &= dy[f] == 0;
    if (WITH_TANGENT)
        for (int c = 0; c < 3; c++) is_nothing &= us[c] == 0;
    if (is_nothing) return;
    spread<F, WITH_TANGENT>((Entry<F> *)d_table + level.offset, cell, dy, taus, us);
}

// Levels lie in the constant bank; blockIdx.y is the level, so that one after the other goes through the caches.
#define GRID_KERNELS(F)                                                                                               \
    KERNEL(encode_##F, const __grid_constant__ Levels levels, i64, i64, i64 N, const float *x, const float *table,    \
           float *y, float *) {                                                                                       \
        encode_point<F, false>(levels, N, x, table, y, nullptr);                                                      \
    }                                                                                                                 \
    KERNEL(encode_jacobian_##F, const __grid_constant__ Levels levels, i64, i64, i64 N, const float *x,               \
           const float *table, float *y, float *jacobian) {                                                           \
        encode_point<F, true>(levels, N, x, table, y, jacobian);                                                      \
    }                                                                                                                 \
    KERNEL(scatter_##F, const __grid_constant__ Levels levels, i64, i64, i64 N, const float *x, const float *d_y,     \
           const float *, const float *, float *d_table) {                                                            \
        scatter_point<F, false>(levels, N, x, d_y, nullptr, nullptr, d_table);                                        \
    }                                                                                                                 \
    KERNEL(scatter_tangent_##F, const __grid_constant__ Levels levels, i64, i64, i64 N, const float *x,               \
           const float *d_y, const float *tau, const float *u, float *d_table) {                                      \
        scatter_point<F, true>(levels, N, x, d_y, tau, u, d_table);                                                   \
    }

GRID_KERNELS(1)
GRID_KERNELS(2)
GRID_KERNELS(4)
GRID_KERNELS(8)

// d_x[3, N] = J^T d_y.
KERNEL(pull_to_position, i64 n_rows, i64 N, const float *__restrict__ jacobian, const float *__restrict__ d_y,
       float *d_x) {
    const i64 i = thread_index();
    if (i >= N) return;
    float sum[3] = {};
    for (i64 f = 0; f < n_rows; f++) {
        const float dy = d_y[f * N + i];
        for (int c = 0; c < 3; c++) sum[c] += jacobian[(f * 3 + c) * N + i] * dy;
    }
    for (int c = 0; c < 3; c++) d_x[c * N + i] = sum[c];
}

// t[n_rows, N] = J u.
KERNEL(push_to_features, i64, i64 N, const float *__restrict__ jacobian, const float *__restrict__ u, float *t) {
    const i64 i = thread_index(), f = blockIdx.y;
    if (i >= N) return;
    float sum = 0;
    for (int c = 0; c < 3; c++) sum += jacobian[(f * 3 + c) * N + i] * u[c * N + i];
    t[f * N + i] = sum;
}

KERNEL(spherical_harmonics, i64 degree, i64 N, const float *__restrict__ d, float *__restrict__ out) {
    const i64 i = thread_index();
    if (i >= N) return;
    vf y[16];
    harmonics((int)degree, load_point(d + i, N, 1), y);
    for (int k = 0; k < 16; k++)
        if (k < degree * degree) out[k * N + i] = y[k];
}

KERNEL(neus_alpha, i64 N, const float *__restrict__ sdf, const float *__restrict__ slope,
       const float *__restrict__ width, const float *__restrict__ sharpness, float *__restrict__ alpha) {
    const i64 i = thread_index();
    if (i < N) alpha[i] = neus_opacity(sdf[i], slope[i], width[i], *sharpness, 0).alpha;
}

// d_sharpness[N]: one number for every sample.
KERNEL(neus_alpha_backward, i64 N, const float *__restrict__ sdf, const float *__restrict__ slope,
       const float *__restrict__ width, const float *__restrict__ sharpness, const float *__restrict__ d_alpha,
       float *__restrict__ d_sdf, float *__restrict__ d_slope, float *__restrict__ d_sharpness) {
    const i64 i = thread_index();
    if (i >= N) return;
    const Opacity d = neus_opacity(sdf[i], slope[i], width[i], *sharpness, d_alpha[i]);
    d_sdf[i] = d.d_sdf;
    d_slope[i] = d.d_slope;
    d_sharpness[i] = d.d_sharpness;
}

// Counts where offsets is null, else writes, but for rays whose samples end beyond the capacity of the arrays.
KERNEL(march, const __grid_constant__ MarchRays rays, i64 R, i64 capacity, i64 *counts, const i64 *offsets,
       float *t_start, float *t_end, i64 *ray) {
    const i64 r = thread_index();
    if (r >= R || (offsets && offsets[r + 1] > capacity)) return;
    constexpr i64 NO_LIMIT = (i64)1 << 62;
    const i64 first = offsets ? offsets[r] : 0, limit = offsets ? offsets[r + 1] - first : NO_LIMIT;
    const i64 n = walk(rays.grid, rays.origins + 3 * r, rays.directions + 3 * r, rays.near[r], rays.far[r], *rays.step,
                       rays.cone, rays.jitter[r], limit, offsets ? limit : 0, t_start + first, t_end + first);
    if (!offsets) counts[r] = n;
    else
        for (i64 i = 0; i < n; i++) ray[first + i] = r;
}

// Compositing is two kernels each way, with the same arguments: along a ray nothing can run at once, across channels
// and, going back, samples everything can.

KERNEL(ray_weights, i64 R, i64, i64, const i64 *offsets, const float *alpha, const float *, float *weights, float *) {
    const i64 r = thread_index();
    if (r < R) composite_weights(offsets[r + 1] - offsets[r], alpha + offsets[r], weights + offsets[r]);
}

KERNEL(ray_sums, i64 R, i64 N, i64, const i64 *offsets, const float *, const float *__restrict__ values,
       const float *__restrict__ weights, float *__restrict__ sums) {
    const i64 r = thread_index(), c = blockIdx.y;
    if (r >= R) return;
    double total = 0;
    for (i64 i = offsets[r]; i < offsets[r + 1]; i++) total += (double)weights[i] * values[c * N + i];
    sums[c * R + r] = (float)total;
}

// The gradient by the weights, from all that depends on them, goes into d_alpha; d_values may be null. A warp for
// every ray.
KERNEL(weight_gradients, i64 R, i64 N, i64 n_channels, const i64 *offsets, const float *,
       const float *__restrict__ values, const float *__restrict__ weights, const float *__restrict__ d_weights,
       const float *__restrict__ d_sums, float *__restrict__ d_alpha, float *__restrict__ d_values, double *) {
    const i64 r = thread_index() / WARP, lane = thread_index() % WARP;
    if (r >= R) return;
    for (i64 i = offsets[r] + lane; i < offsets[r + 1]; i += WARP) {
        float d_weight = d_weights[i];
        for (i64 c = 0; c < n_channels; c++) {
            const float d = d_sums[c * R + r];
            d_weight += d * values[c * N + i];
            if (d_values) d_values[c * N + i] = d * weights[i];
        }
        d_alpha[i] = d_weight;
    }
}

KERNEL(alpha_gradients, i64 R, i64, i64, const i64 *offsets, const float *alpha, const float *, const float *,
       const float *, const float *, float *d_alpha, float *, double *scratch) {
    const i64 r = thread_index();
    if (r >= R) return;
    const i64 o = offsets[r];
    composite_alpha_gradient(offsets[r + 1] - o, alpha + o, d_alpha + o, scratch + o);
}

KERNEL(distortion, i64 R, const i64 *offsets, const float *weights, const float *t, const float *width, float *out) {
    const i64 r = thread_index();
    if (r >= R) return;
    const i64 o = offsets[r];
    out[r] = ray_distortion(offsets[r + 1] - o, weights + o, t + o, width + o);
}

KERNEL(distortion_backward, i64 R, const i64 *offsets, const float *weights, const float *t, const float *width,
       const float *d_out, float *d_weights) {
    const i64 r = thread_index();
    if (r >= R) return;
    const i64 o = offsets[r];
    ray_distortion_gradient(offsets[r + 1] - o, weights + o, t + o, width + o, d_out[r], d_weights + o);
}
