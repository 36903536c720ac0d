// The kernels for a CPU: loops over levels, tiles and rays, behind a plain C interface that native.py calls.
//
// Arrays are feature-major float32 without gaps. Results do not depend on chance, only on the number of threads. Of the
// C++ library nothing is used, so that a compiler without one will do.
#include "networks.h"
#include "parallel.h"
#include "rays.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

constexpr i64 POINTS = 4096;  // points of a part: long enough to amortise, short enough to share evenly
constexpr i64 RAYS = 64;
constexpr i64 TILES = 8;

static i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
static i64 least(i64 a, i64 b) { return a < b ? a : b; }

// Level by level over all points, never point by point over all levels: a level fits the caches, the table does not.
template <int F, bool WITH_JACOBIAN>
static void encode_levels(i64 n_threads, const Level *levels, i64 n_levels, i64 N, const float *x, const float *table,
                          float *y, float *jacobian, Order order) {
    const i64 n_chunks = ceil_div(N, POINTS);
    parallel(n_threads, n_levels * n_chunks, [=](i64 part) {
        const i64 l = part / n_chunks, first = part % n_chunks * POINTS, end = least(N, first + POINTS);
        const Level level = levels[l];
        const auto *entries = (const Entry<F> *)table + level.offset;
        for (i64 i = first; i < end; i += W) {
            const i64 left = end - i;
            Cell cell = locate(level, load_point(x + i, N, left));
            vf value[F], slope[F][3];
            interpolate<F, WITH_JACOBIAN>(entries, cell, value, slope);
            for (int f = 0; f < F; f++) {
                const i64 row = l * F + f;
                store_part(y + row * N + i, value[f], left);
                if (WITH_JACOBIAN)
                    for (int c = 0; c < 3; c++) store_part(jacobian + order.at(3 * row + c, i), slope[f][c], left);
            }
        }
    });
}

// One thread a level, finest first: no two threads add to the same entry.
template <int F, bool WITH_TANGENT>
static void scatter_levels(i64 n_threads, const Level *levels, i64 n_levels, i64 N, const float *x, const float *d_y,
                           const float *tau, const float *u, float *d_table) {
    parallel(n_threads, n_levels, [=](i64 part) {
        const i64 l = n_levels - 1 - part;
        const Level level = levels[l];
        auto *entries = (Entry<F> *)d_table + level.offset;
        for (i64 i = 0; i < N; i += W) {
            const i64 left = N - i;
            Cell cell = locate(level, load_point(x + i, N, left));
            vf dy[F], taus[F], us[3];
            for (int f = 0; f < F; f++) {
                dy[f] = load_part(d_y + (l * F + f) * N + i, left);
                if (WITH_TANGENT) taus[f] = load_part(tau + (l * F + f) * N + i, left);
            }
            if (WITH_TANGENT)
                for (int c = 0; c < 3; c++) us[c] = load_part(u + c * N + i, left);
            spread<F, WITH_TANGENT>(entries, cell, dy, taus, us);
        }
    });
}

// Calls body with the number of features as a compile-time constant: 1, 2, 4 or 8.
template <class Body> static void with_features(i64 n, const Body &body) {
    if (n == 1) body(Count<1>{});
    if (n == 2) body(Count<2>{});
    if (n == 4) body(Count<4>{});
    if (n == 8) body(Count<8>{});
}

// Features [n_levels * F, N]; Jacobian [n_levels * F, 3, N] unless null.
EXPORT void encode(i64 n_threads, const Level *levels, i64 n_levels, i64 n_features, i64 N, const float *x,
                   const float *table, float *y, float *jacobian) {
    with_features(n_features, [=](auto features) {
        constexpr int F = features.n;
        const Order order = Order::by_row(N);
        if (jacobian) encode_levels<F, true>(n_threads, levels, n_levels, N, x, table, y, jacobian, order);
        else encode_levels<F, false>(n_threads, levels, n_levels, N, x, table, y, nullptr, order);
    });
}

// The same with the Jacobian by tile, [ceil(N / TILE), n_levels * F, 3, TILE], zero beyond N.
EXPORT void encode_by_tile(i64 n_threads, const Level *levels, i64 n_levels, i64 n_features, i64 N, const float *x,
                         const float *table, float *y, float *jacobian) {
    with_features(n_features, [=](auto features) {
        constexpr int F = features.n;
        const Order order = Order::by_tile(n_levels * F * 3);
        if (N % TILE) memset(jacobian + order.at(0, N - N % TILE), 0, order.tile_stride * sizeof(float));
        encode_levels<F, true>(n_threads, levels, n_levels, N, x, table, y, jacobian, order);
    });
}

// d_table += gradient by the features, and unless u is null that of u . (J^T tau).
EXPORT void scatter(i64 n_threads, const Level *levels, i64 n_levels, i64 n_features, i64 N, const float *x,
                    const float *d_y, const float *tau, const float *u, float *d_table) {
    with_features(n_features, [=](auto features) {
        constexpr int F = features.n;
        if (u) scatter_levels<F, true>(n_threads, levels, n_levels, N, x, d_y, tau, u, d_table);
        else scatter_levels<F, false>(n_threads, levels, n_levels, N, x, d_y, nullptr, nullptr, d_table);
    });
}

// d_x[3, N] = J^T d_y.
EXPORT void pull_to_position(i64 n_threads, i64 n_rows, i64 N, const float *jacobian, const float *d_y, float *d_x) {
    parallel(n_threads, ceil_div(N, TILE), [=](i64 tile) {
        Row sum[3] = {};
        for (i64 f = 0; f < n_rows; f++) {
            Row j[3], dy;
            load_rows(j, 3, jacobian + f * 3 * N, N, tile * TILE);
            load_rows(&dy, 1, d_y + f * N, N, tile * TILE);
            for (int c = 0; c < 3; c++)
                for (int v = 0; v < V; v++) sum[c].v[v] += j[c].v[v] * dy.v[v];
        }
        store_rows(sum, 3, d_x, N, tile * TILE);
    });
}

template <bool WITH_GRADIENT>
static void forward_tiles(i64 n_threads, const Network &net, const Position &position, const Forward &io, i64 N) {
    const i64 n_tiles = ceil_div(N, TILE);
    const bool is_relu = net.activation == RELU;
    parallel(n_threads, ceil_div(n_tiles, TILES), [&](i64 part) {
        Scratch scratch(forward_scratch(net));
        for (i64 tile = part * TILES; tile < least(n_tiles, (part + 1) * TILES); tile++) {
            auto run = is_relu ? forward_tile<RELU, WITH_GRADIENT> : forward_tile<SOFTPLUS, WITH_GRADIENT>;
            run(net, position, io, N, tile * TILE, scratch.arena());
        }
    });
}

// One part a thread with tiles of its own choosing fixed beforehand, so that sums come out the same every time.
template <bool WITH_GRADIENT>
static void backward_tiles(i64 n_threads, const Network &net, const Position &position, const Backward &io, i64 N,
                           float *const *d_weights, float *const *d_biases) {
    const i64 n_tiles = ceil_div(N, TILE), n_parts = least(n_threads, n_tiles);
    const size_t n_sums = WeightSums::count(net);
    const bool is_relu = net.activation == RELU;
    Scratch sums(n_parts * n_sums * sizeof(float) + 1);
    parallel(n_threads, n_parts, [&](i64 part) {
        Scratch scratch(backward_scratch(net));
        WeightSums mine(net, (float *)sums.memory + part * n_sums);
        for (i64 tile = n_tiles * part / n_parts; tile < n_tiles * (part + 1) / n_parts; tile++) {
            auto run = is_relu ? backward_tile<RELU, WITH_GRADIENT> : backward_tile<SOFTPLUS, WITH_GRADIENT>;
            run(net, position, io, N, tile * TILE, scratch.arena(), mine);
        }
    });
    for (i64 part = 0; part < n_parts; part++)
        WeightSums(net, (float *)sums.memory + part * n_sums).add_to(net, d_weights, d_biases);
}

EXPORT void mlp_forward(i64 n_threads, const Network *net, i64 N, const float *inputs, float *outputs) {
    forward_tiles<false>(n_threads, *net, {}, {inputs, outputs, nullptr}, N);
}

// d_weights and d_biases are added to; d_inputs holds the rows from first_input on, unless null.
EXPORT void mlp_backward(i64 n_threads, const Network *net, i64 N, const float *inputs, const float *outputs,
                         const float *d_outputs, i64 first_input, float *d_inputs, float *const *d_weights,
                         float *const *d_biases) {
    const Backward io{inputs, outputs, d_outputs, nullptr, d_inputs, (int32_t)first_input, nullptr};
    backward_tiles<false>(n_threads, *net, {}, io, N, d_weights, d_biases);
}

EXPORT void sdf_forward(i64 n_threads, const Network *net, i64 n_xyz, i64 N, const float *inputs, const float *jacobian,
                        float *outputs, float *gradient) {
    const Position position{(int32_t)n_xyz, net->widths[0] - (int32_t)n_xyz, jacobian};
    forward_tiles<true>(n_threads, *net, position, {inputs, outputs, gradient}, N);
}

EXPORT void sdf_backward(i64 n_threads, const Network *net, i64 n_xyz, i64 N, const float *inputs,
                         const float *jacobian, const float *d_outputs, const float *d_gradient, float *d_features,
                         float *feature_tau, float *const *d_weights, float *const *d_biases) {
    const Position position{(int32_t)n_xyz, net->widths[0] - (int32_t)n_xyz, jacobian};
    const Backward io{inputs, nullptr, d_outputs, d_gradient, d_features, (int32_t)n_xyz, feature_tau};
    backward_tiles<true>(n_threads, *net, position, io, N, d_weights, d_biases);
}

EXPORT void spherical_harmonics(i64 n_threads, i64 degree, i64 N, const float *d, float *out) {
    parallel(n_threads, ceil_div(N, POINTS), [=](i64 part) {
        for (i64 i = part * POINTS; i < least(N, (part + 1) * POINTS); i += W) {
            vf y[16];
            harmonics((int)degree, load_point(d + i, N, N - i), y);
            for (i64 k = 0; k < degree * degree; k++) store_part(out + k * N + i, y[k], N - i);
        }
    });
}

EXPORT void neus_alpha(i64 n_threads, i64 N, const float *sdf, const float *slope, const float *width, float sharpness,
                       float *alpha) {
    parallel(n_threads, ceil_div(N, POINTS), [=](i64 part) {
        for (i64 i = part * POINTS; i < least(N, (part + 1) * POINTS); i += W) {
            const i64 left = N - i;
            vf s = load_part(sdf + i, left), k = load_part(slope + i, left), w = load_part(width + i, left);
            store_part(alpha + i, neus_opacity(s, k, w, sharpness, vf{}).alpha, left);
        }
    });
}

// d_sharpness[ceil(N / 4096)]: one sum for every 4096 samples.
EXPORT void neus_alpha_backward(i64 n_threads, i64 N, const float *sdf, const float *slope, const float *width,
                                float sharpness, const float *d_alpha, float *d_sdf, float *d_slope,
                                float *d_sharpness) {
    parallel(n_threads, ceil_div(N, POINTS), [=](i64 part) {
        vf total{};
        for (i64 i = part * POINTS; i < least(N, (part + 1) * POINTS); i += W) {
            const i64 left = N - i;
            vf s = load_part(sdf + i, left), k = load_part(slope + i, left), w = load_part(width + i, left);
            Opacity d = neus_opacity(s, k, w, sharpness, load_part(d_alpha + i, left));
            store_part(d_sdf + i, d.d_sdf, left);
            store_part(d_slope + i, d.d_slope, left);
            total += d.d_sharpness;
        }
        d_sharpness[part] = sum(total);
    });
}

constexpr i64 KEPT = 64;  // as in marching.py

// Keeps the first intervals of each ray, kept[R, 2, KEPT], so that few rays are walked a second time.
EXPORT void march_count(i64 n_threads, const MarchRays *rays, i64 R, i64 *counts, float *kept) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            float *first = kept + 2 * KEPT * r;
            counts[r] = walk(rays->grid, rays->origins + 3 * r, rays->directions + 3 * r, rays->near[r], rays->far[r],
                             *rays->step, rays->cone, rays->jitter[r], INT64_MAX, KEPT, first, first + KEPT);
        }
    });
}

// Rays whose samples end beyond the capacity of the arrays are left out.
EXPORT void march_fill(i64 n_threads, const MarchRays *rays, i64 R, i64 capacity, const i64 *offsets,
                       const float *kept, float *t_start, float *t_end, i64 *ray) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            if (offsets[r + 1] > capacity) continue;
            const float *first = kept + 2 * KEPT * r;
            float *start = t_start + offsets[r], *end = t_end + offsets[r];
            const i64 n = offsets[r + 1] - offsets[r];
            if (n > KEPT)
                walk(rays->grid, rays->origins + 3 * r, rays->directions + 3 * r, rays->near[r], rays->far[r],
                     *rays->step, rays->cone, rays->jitter[r], n, n, start, end);
            else
                for (i64 i = 0; i < n; i++) start[i] = first[i], end[i] = first[KEPT + i];
            for (i64 i = 0; i < n; i++) ray[offsets[r] + i] = r;
        }
    });
}

EXPORT void composite(i64 n_threads, i64 R, i64 N, i64 n_channels, const i64 *offsets, const float *alpha,
                      const float *values, float *weights, float *sums) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            composite_weights(offsets[r + 1] - offsets[r], alpha + offsets[r], weights + offsets[r]);
            for (i64 c = 0; c < n_channels; c++) {
                double total = 0;
                for (i64 i = offsets[r]; i < offsets[r + 1]; i++) total += (double)weights[i] * values[c * N + i];
                sums[c * R + r] = (float)total;
            }
        }
    });
}

// d_values may be null.
EXPORT void composite_backward(i64 n_threads, i64 R, i64 N, i64 n_channels, const i64 *offsets, const float *alpha,
                               const float *values, const float *weights, const float *d_weights, const float *d_sums,
                               float *d_alpha, float *d_values, double *scratch) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            for (i64 i = offsets[r]; i < offsets[r + 1]; i++) d_alpha[i] = d_weights[i];
            for (i64 c = 0; c < n_channels; c++) {
                const float d = d_sums[c * R + r];
                for (i64 i = offsets[r]; i < offsets[r + 1]; i++) {
                    d_alpha[i] += d * values[c * N + i];
                    if (d_values) d_values[c * N + i] = d * weights[i];
                }
            }
            composite_alpha_gradient(offsets[r + 1] - offsets[r], alpha + offsets[r], d_alpha + offsets[r],
                                     scratch + offsets[r]);
        }
    });
}

EXPORT void distortion(i64 n_threads, i64 R, const i64 *offsets, const float *weights, const float *t,
                       const float *width, float *out) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            const i64 o = offsets[r];
            out[r] = ray_distortion(offsets[r + 1] - o, weights + o, t + o, width + o);
        }
    });
}

EXPORT void distortion_backward(i64 n_threads, i64 R, const i64 *offsets, const float *weights, const float *t,
                                const float *width, const float *d_out, float *d_weights) {
    parallel(n_threads, ceil_div(R, RAYS), [=](i64 part) {
        for (i64 r = part * RAYS; r < least(R, (part + 1) * RAYS); r++) {
            const i64 o = offsets[r];
            ray_distortion_gradient(offsets[r + 1] - o, weights + o, t + o, width + o, d_out[r], d_weights + o);
        }
    });
}
