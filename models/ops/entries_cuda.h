// Entries of a hash grid in the memory of a GPU, where any thread may add to any entry. Part of kernels.h.
#pragma once
#include "lanes.h"

// Aligned, so that an entry is one or two loads, and from sm_90 on as many additions in memory.
template <int F> struct alignas(F < 4 ? 4 * F : 16) Entry {
    float feature[F];
};

template <int F> INLINE void gather(const Entry<F> *entries, vu key, vf *values) {
    const Entry<F> entry = entries[key];
    for (int f = 0; f < F; f++) values[f] = entry.feature[f];
}

template <int F> INLINE void scatter(Entry<F> *entries, vu key, const vf *values) {
    float *feature = entries[key].feature;
#if __CUDA_ARCH__ >= 900
    if (F == 1) atomicAdd(feature, values[0]);
    if (F == 2) atomicAdd((float2 *)feature, make_float2(values[0], values[1]));
    for (int f = 0; f + 3 < F; f += 4)
        atomicAdd((float4 *)(feature + f), make_float4(values[f], values[f + 1], values[f + 2], values[f + 3]));
#else
    for (int f = 0; f < F; f++) atomicAdd(feature + f, values[f]);
#endif
}
