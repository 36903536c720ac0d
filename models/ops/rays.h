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
};

// What is the same for all cells that a ray meets.
struct Walker {
    const Occupancy &grid;
    const float *o, *d;
    float per_radius, size, side, per_direction[3];

    Walker(const Occupancy &grid, const float *o, const float *d)
        : grid(grid), o(o), d(d), per_radius(1 / grid.radius), size((float)grid.resolution),
          side(2 * grid.radius / (float)grid.resolution) {
        for (int k = 0; k < 3; k++) per_direction[k] = 1 / d[k];
    }

    // State of the cell at distance t; sets `exit` to where the ray leaves it. Positions are clamped into the grid.
    uint8_t look(float t, float *exit) const {
        float z[3], shrink = .5f;
        for (int k = 0; k < 3; k++) z[k] = (o[k] + t * d[k]) * per_radius;
        if (grid.is_sphere) {
            const float norm = sqrtf(z[0] * z[0] + z[1] * z[1] + z[2] * z[2]);
            shrink = norm > 1 ? (2 - 1 / norm) / norm * .25f : .25f;
        }
        int cell[3];
        *exit = INFINITY;
        for (int k = 0; k < 3; k++) {
            const float c = (z[k] * shrink + .5f) * size;
            cell[k] = (int)(c > 0 ? (c < size - 1 ? c : size - 1) : 0);  // 0 where c is NaN
            const float leave = ((float)(cell[k] + (d[k] > 0)) * side - grid.radius - o[k]) * per_direction[k];
            if (d[k] != 0 && leave < *exit) *exit = leave;
        }
        if (grid.is_sphere) *exit = -INFINITY;  // contracted cells have curved faces: look at every step
        return grid.cells[((i64)cell[2] * grid.resolution + cell[1]) * grid.resolution + cell[0]];
    }
};

// Finds at most `limit` intervals of a ray and returns how many; writes them unless t_start is null.
//
// Never inlined: counting and writing must run the same instructions, or rounding could make them disagree.
static __attribute__((noinline)) i64 walk(const Occupancy &grid, const float *o, const float *d, float near, float far,
                                          float step, float cone, float jitter, i64 limit, float *t_start,
                                          float *t_end) {
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
            if (t_start) t_start[count] = t, t_end[count] = t + width;
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
