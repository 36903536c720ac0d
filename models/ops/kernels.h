// The mathematics of the operations for W lanes: no loops over points or rays, no torch. See reference.py for what
// each function computes.
#pragma once
#include "lanes.h"

// A multiresolution hash grid.

struct Level {
    float scale;
    uint32_t resolution, mask, is_dense;
    i64 offset;  // first entry in the table
};

struct Cell {
    vf fraction[3];  // position inside the cell
    vf slope[3];     // its derivative by x: the scale, or 0 where x is clamped
    vu key[8];       // entries of the corners within the level, x fastest
};

constexpr uint32_t PRIME_Y = 2654435761u, PRIME_Z = 805459861u;

INLINE Cell locate(const Level &level, const Point &point) {
    Cell cell;
    vu vertex[3];
    for (int k = 0; k < 3; k++) {
        vf raw = point.x[k], inside = smaller(larger(raw, vf{}), splat(1.f)) * level.scale + .5f;
        vi floor = truncate(inside);
        vertex[k] = (vu)floor;
        // A NaN looks at cell 0, so memory is safe, but stays visible in the result.
        cell.fraction[k] = raw == raw ? inside - to_float(floor) : raw;
        cell.slope[k] = raw >= 0.f ? (raw <= 1.f ? splat(level.scale) : vf{}) : vf{};
    }
    if (level.is_dense) {
        uint32_t row = level.resolution, slice = row * row;
        vu first = vertex[0] + vertex[1] * row + vertex[2] * slice;
        for (uint32_t i = 0; i < 8; i++) cell.key[i] = first + ((i & 1) + (i & 2 ? row : 0) + (i & 4 ? slice : 0));
    } else {
        vu hash_y = vertex[1] * PRIME_Y, hash_z = vertex[2] * PRIME_Z;
        for (uint32_t i = 0; i < 8; i++) {
            vu key = (vertex[0] + (i & 1)) ^ (hash_y + (i & 2 ? PRIME_Y : 0)) ^ (hash_z + (i & 4 ? PRIME_Z : 0));
            cell.key[i] = key & level.mask;
        }
    }
    return cell;
}

#ifdef __CUDACC__
#include "entries_cuda.h"
#else
// A struct indexed by the 32-bit key: compilers then let the addressing do the arithmetic, a quarter faster.
template <int F> struct Entry {
    float feature[F];
};

template <int F> INLINE void gather(const Entry<F> *entries, vu key, vf *values) {
    if (F == 1) {
        values[0] = vf{};
        for (int j = 0; j < W; j++) set_lane(values[0], j, entries[get_lane(key, j)].feature[0]);
    }
    for (int f = 0; f + 1 < F; f += 2) {  // two at a time: half the loads and inserts
        Pair pair = gather_pairs((const uint64_t *)entries[0].feature + f / 2, key * (uint32_t)(F / 2));
        values[f] = pair.first;
        values[f + 1] = pair.second;
    }
}

// Through memory: compilers take long to pull single lanes out of vectors.
template <int F> INLINE void scatter(Entry<F> *entries, vu key, const vf *values) {
    uint32_t keys[W];
    memcpy(keys, &key, sizeof keys);
    if (F == 1) {
        float row[W];
        memcpy(row, values, sizeof row);
        for (int j = 0; j < W; j++) entries[keys[j]].feature[0] += row[j];
    }
    for (int f = 0; f + 1 < F; f += 2) {
        float2 pairs[W];
        Pair pair = interleave(values[f], values[f + 1]);
        memcpy(pairs, &pair, sizeof pairs);
        for (int j = 0; j < W; j++) {
            float2 sum, *entry = (float2 *)(entries[keys[j]].feature + f);
            memcpy(&sum, entry, sizeof sum);
            sum += pairs[j];
            memcpy(entry, &sum, sizeof sum);
        }
    }
}
#endif

// Features y[F] of one level, and if wanted their derivatives J[F][3].
template <int F, bool WITH_JACOBIAN>
INLINE void interpolate(const Entry<F> *entries, const Cell &cell, vf *y, vf (*J)[3]) {
    vf corner[8][F] = {};
    for (int i = 0; i < 8; i++) gather<F>(entries, cell.key[i], corner[i]);
    const vf *t = cell.fraction;
    for (int f = 0; f < F; f++) {
        vf dx[4], along_x[4];
        for (int i = 0; i < 4; i++) {
            dx[i] = corner[2 * i + 1][f] - corner[2 * i][f];
            along_x[i] = corner[2 * i][f] + dx[i] * t[0];
        }
        vf dy[2] = {along_x[1] - along_x[0], along_x[3] - along_x[2]};
        vf along_y[2] = {along_x[0] + dy[0] * t[1], along_x[2] + dy[1] * t[1]}, dz = along_y[1] - along_y[0];
        y[f] = along_y[0] + dz * t[2];
        if (WITH_JACOBIAN) {
            J[f][0] = cell.slope[0] * mix(mix(dx[0], dx[1], t[1]), mix(dx[2], dx[3], t[1]), t[2]);
            J[f][1] = cell.slope[1] * mix(dy[0], dy[1], t[2]);
            J[f][2] = cell.slope[2] * dz;
        }
    }
}

// Adds to the corners the gradient dy by the features and, if wanted, that of u . (J^T tau): w dy + (dw . u) tau.
template <int F, bool WITH_TANGENT>
INLINE void spread(Entry<F> *entries, const Cell &cell, const vf *dy, const vf *tau, const vf *u) {
    const vf *t = cell.fraction;
    vf du[3] = {};
    if (WITH_TANGENT)
        for (int k = 0; k < 3; k++) du[k] = cell.slope[k] * u[k];
    for (int i = 0; i < 4; i++) {
        vf wy = i & 1 ? t[1] : 1.f - t[1], wz = i & 2 ? t[2] : 1.f - t[2], w = wy * wz;
        vf dw = (i & 1 ? du[1] : -du[1]) * wz + (i & 2 ? du[2] : -du[2]) * wy;
        vf left[F], right[F];
        for (int f = 0; f < F; f++) {
            vf total = dy[f] * w, along_x{};
            if (WITH_TANGENT) {
                total += tau[f] * dw;
                along_x = tau[f] * (du[0] * w);
            }
            left[f] = total * (1.f - t[0]) - along_x;
            right[f] = total * t[0] + along_x;
        }
        scatter<F>(entries, cell.key[2 * i], left);
        scatter<F>(entries, cell.key[2 * i + 1], right);
    }
}

// e^(-rate |x|), relative error 3e-7 and that of the product; never below e^-87, so never subnormal. NaN stays NaN.
INLINE vf decay(vf x, float rate) {
    constexpr float LOG2_E = 1.44269504f, TO_INTEGER = 12582912.f;  // 1.5 * 2^23: sums with it have no fraction
    const float slope = -rate * LOG2_E;
    x = smaller(splat(87.f / rate), magnitude(x));
    vf shifted = x * slope + TO_INTEGER, integer = shifted - TO_INTEGER, r = x * slope - integer;
    // 2^r for |r| <= 1/2, fitted; the integer, in the last bits of `shifted`, is added to the exponent.
    vf p = 1.f + r * (.69314698f + r * (.24022242f + r * (.05550734f + r * (.00967151f + r * .00132647f))));
    return bits<vf>(bits<vu>(p) + (bits<vu>(shifted) << 23));
}

// log(1 + e) for e in [0, 1]: Chebyshev fit of log(1 + e) / e, relative error 3e-7.
INLINE vf log1p_unit(vf e) {
    vf q = .0434939f - e * .00837115f;
    q = .17687477f + e * (e * q - .10685003f);
    q = .3327193f + e * (e * q - .24474774f);
    return e * (.99999976f + e * (e * q - .49997175f));
}

// 1 / a for a in [1, 2], by Newton's method from a parabola: two steps cost a quarter of a division.
INLINE vf inverse_of_one_to_two(vf a) {
    vf r = 2.1212121f + a * (.32323232f * a - 1.4545455f);
    for (int i = 0; i < 2; i++) r = r * (2.f - a * r);
    return r;
}

struct Sigmoid {
    vf value, slope;
};

INLINE Sigmoid sigmoid(vf x) {
    vf e = decay(x, 1.f), r = inverse_of_one_to_two(1.f + e);
    return {x > 0.f ? r : e * r, e * r * r};
}

enum Activation { NONE = 0, RELU = 1, SIGMOID = 2, SOFTPLUS = 3 };
constexpr float SOFTPLUS_BETA = 100.f;

struct Activated {
    vf value, slope, curvature;
};

// A hidden activation with its first two derivatives; what is not used costs nothing, as all is inlined.
template <int ACTIVATION> INLINE Activated activate(vf z) {
    if (ACTIVATION == RELU) return {larger(vf{}, z), z > 0.f ? splat(1.f) : vf{}, vf{}};
    vf e = decay(z, SOFTPLUS_BETA), r = inverse_of_one_to_two(1.f + e), falling = e * r;
    return {larger(vf{}, z) + log1p_unit(e) * (1.f / SOFTPLUS_BETA), z > 0.f ? r : falling,
            SOFTPLUS_BETA * (falling * r)};
}

// The opacity of an interval and, for upstream gradient d, the gradients it causes.
struct Opacity {
    vf alpha, d_sdf, d_slope, d_sharpness;
};

INLINE Opacity neus_opacity(vf sdf, vf slope, vf width, float sharpness, vf d) {
    constexpr float EPSILON = 1e-5f;
    vf half = .5f * width, before_sdf = sdf - slope * half, after_sdf = sdf + slope * half;
    Sigmoid before = sigmoid(before_sdf * sharpness), after = sigmoid(after_sdf * sharpness);
    vf inverse = 1.f / (before.value + EPSILON), raw = (before.value - after.value + EPSILON) * inverse;
    d = raw >= 0.f ? (raw <= 1.f ? d : vf{}) : vf{};
    vf d_before = d * after.value * inverse * inverse * before.slope, d_after = -d * inverse * after.slope;
    return {raw != raw ? raw : smaller(larger(raw, vf{}), splat(1.f)), sharpness * (d_before + d_after),
            sharpness * half * (d_after - d_before), d_before * before_sdf + d_after * after_sdf};
}

// Real spherical harmonics of the first `degree` bands, y[degree^2].
INLINE void harmonics(int degree, const Point &direction, vf *out) {
    vf x = direction.x[0], y = direction.x[1], z = direction.x[2], xx = x * x, yy = y * y, zz = z * z;
    out[0] = splat(.28209479f);
    if (degree < 2) return;
    out[1] = -.48860251f * y, out[2] = .48860251f * z, out[3] = -.48860251f * x;
    if (degree < 3) return;
    out[4] = 1.09254843f * x * y, out[5] = -1.09254843f * y * z, out[6] = .31539157f * (3.f * zz - 1.f);
    out[7] = -1.09254843f * x * z, out[8] = .54627422f * (xx - yy);
    if (degree < 4) return;
    vf ring = 1.f - 5.f * zz;
    out[9] = .59004359f * y * (yy - 3.f * xx), out[10] = 2.89061144f * x * y * z, out[11] = .45704580f * y * ring;
    out[12] = .37317633f * z * (5.f * zz - 3.f), out[13] = .45704580f * x * ring;
    out[14] = 1.44530572f * z * (xx - yy), out[15] = .59004359f * x * (3.f * yy - xx);
}
