// cuda.cu for a CPU: a thread after the other, and of the CUDA driver's library what cuda.py calls.
//
// It shows whether kernels compute the right thing and stay inside their arrays, not whether they are fast. Threads run
// last to first, as a GPU promises no order.
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <utility>

#define __CUDACC__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__

struct Index {
    unsigned x, y;
};
static Index blockIdx, threadIdx;

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// A GPU faults where an address is not aligned to what is added at once.
template <class T> static float *aligned(T *p) {
    if ((uintptr_t)p % sizeof(T)) __builtin_trap();
    return (float *)p;
}
static void atomicAdd(float *p, float a) { *p += a; }
static void atomicAdd(float2 *p, float2 a) { aligned(p)[0] += a.x, aligned(p)[1] += a.y; }
static void atomicAdd(float4 *p, float4 a) {
    float *q = aligned(p);
    q[0] += a.x, q[1] += a.y, q[2] += a.z, q[3] += a.w;
}

struct Kernel {
    const char *name;
    void (*run)(void **arguments);
    Kernel *next;
};
static Kernel *kernels = nullptr;

struct Registration {
    Kernel kernel;
    Registration(const char *name, void (*run)(void **)) : kernel{name, run, kernels} { kernels = &kernel; }
};

template <class... A, size_t... I>
static void apply(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}
template <class... A> static void apply(void (*kernel)(A...), void **arguments) {
    apply(kernel, arguments, std::make_index_sequence<sizeof...(A)>{});
}

#define KERNEL(name, ...)                                                                    \
    static void name(__VA_ARGS__);                                                           \
    static Registration registered_##name(#name, [](void **arguments) { apply(name, arguments); }); \
    static void name(__VA_ARGS__)

namespace kernel_code {
#include "cuda.cu"
}

#define DRIVER extern "C" __attribute__((visibility("default"))) int
constexpr int INVALID_VALUE = 1, INVALID_CONTEXT = 201, NOT_FOUND = 500;
static void *current = nullptr;

DRIVER cuInit(unsigned) { return 0; }
DRIVER cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
DRIVER cuDevicePrimaryCtxRetain(void **context, int) { return *context = &kernels, 0; }
DRIVER cuCtxSetCurrent(void *context) { return current = context, 0; }
DRIVER cuModuleLoadData(void **module, const void *code) {
    *module = &kernels;
    return !current ? INVALID_CONTEXT : code ? 0 : INVALID_VALUE;
}
DRIVER cuModuleGetFunction(void **function, void *module, const char *name) {
    for (Kernel *kernel = *(Kernel **)module; kernel; kernel = kernel->next)
        if (!strcmp(kernel->name, name)) return *function = kernel, 0;
    return NOT_FOUND;
}
DRIVER cuLaunchKernel(Kernel *kernel, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned, void *, void **arguments, void **) {
    if (!current) return INVALID_CONTEXT;
    if (!blocks_x || !blocks_y || blocks_y > 65535 || blocks_z != 1) return INVALID_VALUE;
    if (block_x != kernel_code::BLOCK || block_y != 1 || block_z != 1) return INVALID_VALUE;
    for (blockIdx.y = blocks_y; blockIdx.y-- > 0;)
        for (blockIdx.x = blocks_x; blockIdx.x-- > 0;)
            for (threadIdx.x = block_x; threadIdx.x-- > 0;) kernel->run(arguments);
    return 0;
}
DRIVER cuGetErrorString(int error, const char **text) {
    *text = error == NOT_FOUND ? "named symbol not found" : "invalid argument";
    return 0;
}
