// The mathematics of the operations for W lanes: no loops over points or rays, no torch. See reference.py for what
// each function computes.
#pragma once
#include "lanes.h"

// ---------------------------------------------------------------------------------------------- hash grid

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

INLINE Cell locate(const Level &level, vf x, vf y, vf z) {
    Cell cell;
    vf position[3] = {x, y, z};
    vu vertex[3];
    for (int k = 0; k < 3; k++) {
        vf raw = position[k], inside = smaller(larger(raw, vf{}), splat(1.f)) * level.scale + .5f;
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
        for (uint32_t i = 0; i < 8; i++)
            cell.key[i] =
                ((vertex[0] + (i & 1)) ^ (hash_y + (i & 2 ? PRIME_Y : 0)) ^ (hash_z + (i & 4 ? PRIME_Z : 0))) & level.mask;
    }
    return cell;
}

template <int F> INLINE void gather(const float *entries, vu key, vf *values) {
    for (int j = 0; j < W; j++) {
        const float *entry = entries + (i64)get_lane(key, j) * F;
        for (int f = 0; f < F; f++) set_lane(values[f], j, entry[f]);
    }
}

template <int F> INLINE void scatter(float *entries, vu key, const vf *values) {
    for (int j = 0; j < W; j++) {
        float *entry = entries + (i64)get_lane(key, j) * F;
        for (int f = 0; f < F; f++) entry[f] += get_lane(values[f], j);
    }
}

// Features y[F] of one level, and if wanted their derivatives J[F][3].
template <int F, bool WITH_JACOBIAN> INLINE void interpolate(const float *entries, const Cell &cell, vf *y, vf (*J)[3]) {
    vf corner[8][F];
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
INLINE void spread(float *entries, const Cell &cell, const vf *dy, const vf *tau, const vf *u) {
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

// -------------------------------------------------------------------------------------------- activations

// e^x for x <= 0; relative error 2e-7, and 0 below -87.
INLINE vf exp_negative(vf x) {
    x = larger(x, splat(-87.f));
    vi n = truncate(x * 1.44269504f - .5f);
    vf r = x - to_float(n) * .693359375f + to_float(n) * 2.12194440e-4f;  // ln 2 in two parts
    vf p = 1.f + r * (1.f + r * (.5f + r * (.16666667f + r * (.041666657f + r * (.0083334519f + r * .0013921526f)))));
    return bits<vf>(bits<vi>(p) + (n << 23));
}
