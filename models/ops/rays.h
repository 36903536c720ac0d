// The mathematics of a single ray: marching through an occupancy grid, compositing. See reference.py.
#pragma once
#include <math.h>

#include "lanes.h"

enum CellState { EMPTY = 0, SHELL = 1, SOLID = 2 };

struct Occupancy {
    const uint8_t *cells;  // [z][y][x]
    i64 resolution;
    float radius;
    int is_sphere;
    const uint8_t *gaps;  // of every block of GAP^3 cells, how many blocks around are empty, itself included; or null
};

constexpr int GAP = 4;

struct MarchRays {  // mirrored in marching.py
    const float *origins, *directions, *near, *far, *jitter;
    Occupancy grid;
    const float *step;  // where the rays are, so that the host need not know it
    float cone;
};

// What is the same for all cells that a ray meets.
struct Walker {
    const Occupancy &grid;
    const float *o, *d;
    float per_radius, size, side, per_direction[3];

    DEVICE Walker(const Occupancy &grid, const float *o, const float *d)
        : grid(grid), o(o), d(d), per_radius(1 / grid.radius), size((float)grid.resolution),
          side(2 * grid.radius / (float)grid.resolution) {
        for (int k = 0; k < 3; k++) per_direction[k] = 1 / d[k];
    }

    // State of the cell at distance t; sets `exit` to where the ray leaves it, or the gap around it. Positions are clamped into the grid.
    DEVICE uint8_t look(float t, float *exit) const {
        float z[3], shrink = .5f;
        for (int k = 0; k < 3; k++) z[k] = (o[k] + t * d[k]) * per_radius;
        if (grid.is_sphere) {
            const float norm = sqrtf(z[0] * z[0] + z[1] * z[1] + z[2] * z[2]);
            shrink = norm > 1 ? (2 - 1 / norm) / norm * .25f : .25f;
        }
        int cell[3];
        for (int k = 0; k < 3; k++) {
            const float c = (z[k] * shrink + .5f) * size;
            cell[k] = (int)(c > 0 ? (c < size - 1 ? c : size - 1) : 0);  // 0 where c is NaN
        }
        if (grid.is_sphere) {
            *exit = -INFINITY;  // contracted cells have curved faces: look at every step
            return at(grid.cells, grid.resolution, cell[0], cell[1], cell[2]);
        }
        if (grid.gaps) {
            const int block[3] = {cell[0] / GAP, cell[1] / GAP, cell[2] / GAP};
            const int gap = at(grid.gaps, (grid.resolution + GAP - 1) / GAP, block[0], block[1], block[2]);
            if (gap) {
                *exit = leave((block[0] + 1 - gap) * GAP, (block[0] + gap) * GAP, (block[1] + 1 - gap) * GAP,
                              (block[1] + gap) * GAP, (block[2] + 1 - gap) * GAP, (block[2] + gap) * GAP);
                return EMPTY;
            }
        }
        *exit = leave(cell[0], cell[0] + 1, cell[1], cell[1] + 1, cell[2], cell[2] + 1);
        return at(grid.cells, grid.resolution, cell[0], cell[1], cell[2]);
    }

    DEVICE static uint8_t at(const uint8_t *values, i64 n, int x, int y, int z) { return values[(z * n + y) * n + x]; }

    // Distance at which the ray leaves a box of cells.
    DEVICE float leave(int x0, int x1, int y0, int y1, int z0, int z1) const {
        const int face[3] = {d[0] > 0 ? x1 : x0, d[1] > 0 ? y1 : y0, d[2] > 0 ? z1 : z0};
        float first = INFINITY;
        for (int k = 0; k < 3; k++) {
            const float t = ((float)face[k] * side - grid.radius - o[k]) * per_direction[k];
            if (d[k] != 0 && t < first) first = t;
        }
        return first;
    }
};

// Finds at most `limit` intervals of a ray and returns how many; writes the first `room` of them.
//
// A single copy: counting and writing must run the same instructions, or rounding could make them disagree.
SINGLE_COPY i64 walk(const Occupancy &grid, const float *o, const float *d, float near, float far, float step,
                     float cone, float jitter, i64 limit, i64 room, float *t_start, float *t_end) {
    const Walker walker(grid, o, d);
    const float first = near + jitter * step, per_step = 1 / step;
    float t = first, exit = -INFINITY;
    uint8_t state = EMPTY;
    i64 count = 0, k = 0;
    while (count < limit) {
        const float width = t * cone > step ? t * cone : step, middle = t + .5f * width;
        if (!(middle < far) || !(t + width > t)) break;  // also where float32 cannot tell the next step from this one
        if (!(middle < exit)) state = walker.look(middle, &exit);  // in another cell than the interval before
        if (state == SOLID) break;
        if (state == SHELL) {
            if (count < room) t_start[count] = t, t_end[count] = t + width;
            count++;
        }
        k++;
        if (cone == 0 && state == EMPTY && exit > middle) {  // as many whole steps as lie in the empty cell
            const i64 beyond = (i64)ceilf(((exit < far ? exit : far) - first) * per_step - .5f);
            if (beyond > k) k = beyond;
        }
        t = cone > 0 ? t + width : first + (float)k * step;
    }
    return count;
}

// Weights of one ray's n samples. float64: the product runs over the whole ray.
INLINE void composite_weights(i64 n, const float *alpha, float *weights) {
    double transmittance = 1;
    for (i64 i = 0; i < n; i++) {
        weights[i] = (float)(transmittance * alpha[i]);
        transmittance *= 1 - (double)alpha[i];
    }
}

// Turns d_weights, the gradient by the weights, into that by alpha, in place.
//
// d_alpha_i = T_i (g_i - B_i), where B_i = alpha_(i+1) g_(i+1) + (1 - alpha_(i+1)) B_(i+1) is what the rest of the ray
// would have seen: no division by 1 - alpha, which may be 0. `scratch` has room for n numbers.
INLINE void composite_alpha_gradient(i64 n, const float *alpha, float *gradient, double *scratch) {
    double transmittance = 1, behind = 0;
    for (i64 i = 0; i < n; i++) {
        scratch[i] = transmittance;
        transmittance *= 1 - (double)alpha[i];
    }
    for (i64 i = n - 1; i >= 0; i--) {
        double seen = gradient[i];
        gradient[i] = (float)(scratch[i] * (seen - behind));
        behind = alpha[i] * seen + (1 - (double)alpha[i]) * behind;
    }
}

INLINE float ray_distortion(i64 n, const float *w, const float *t, const float *width) {
    double before = 0, moment = 0, inside = 0, between = 0;
    for (i64 i = 0; i < n; i++) {
        inside += (double)width[i] * w[i] * w[i];
        between += w[i] * (t[i] * before - moment);
        before += w[i];
        moment += (double)w[i] * t[i];
    }
    return (float)(inside / 3 + 2 * between);
}

INLINE void ray_distortion_gradient(i64 n, const float *w, const float *t, const float *width, float d, float *d_w) {
    double before = 0, moment = 0, behind = 0, moment_behind = 0;
    for (i64 i = 0; i < n; i++) behind += w[i], moment_behind += (double)w[i] * t[i];
    for (i64 i = 0; i < n; i++) {
        behind -= w[i], moment_behind -= (double)w[i] * t[i];
        d_w[i] = (float)(d * (2. / 3 * width[i] * w[i] + 2 * (t[i] * before - moment + moment_behind - t[i] * behind)));
        before += w[i], moment += (double)w[i] * t[i];
    }
}
