// Small matrix products on tiles of TILE points: the arithmetic of multilayer perceptrons.
//
// A tile holds rows of TILE floats, one row per feature, so that a weight is one broadcast number and a row a few
// vectors. Products keep BLOCK rows of sums in registers.
#pragma once
#include "kernels.h"

constexpr int V = 4;         // vectors in a row
constexpr int TILE = V * W;  // points in a tile
static_assert(TILE <= 64, "hash_grid.py makes room for tiles of at most MOST_IN_TILE points");
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int BLOCK = 4;  // 16 sums: there are 32 vector registers
#else
constexpr int BLOCK = 3;  // 12 sums: there are 16
#endif

struct Row {
    vf v[V];
};

// Rows i .. i + TILE of a feature-major array [n, N]; points beyond N are zero.
static void load_rows(Row *rows, int n, const float *p, i64 N, i64 i) {
    if (i + TILE <= N) {
        for (int k = 0; k < n; k++) memcpy(&rows[k], p + k * N + i, sizeof(Row));
        return;
    }
    for (int k = 0; k < n; k++) {
        rows[k] = Row{};
        memcpy(&rows[k], p + k * N + i, (N - i) * sizeof(float));
    }
}

static void store_rows(const Row *rows, int n, float *p, i64 N, i64 i) {
    const size_t size = i + TILE <= N ? sizeof(Row) : (N - i) * sizeof(float);
    for (int k = 0; k < n; k++) memcpy(p + k * N + i, &rows[k], size);
}

// Where point i of a row lies: rows one after the other, or tile by tile, which is read faster than a hundred rows at
// once.
struct Order {
    i64 row_stride, tile_stride;

    static Order by_row(i64 N) { return {N, TILE}; }
    static Order by_tile(i64 n_rows) { return {TILE, n_rows * TILE}; }
    i64 at(i64 row, i64 i) const { return i / TILE * tile_stride + row * row_stride + i % TILE; }
};

static void fill_rows(int n, const float *values, Row *out) {
    for (int k = 0; k < n; k++)
        for (vf &v : out[k].v) v = splat(values[k]);
}

// A matrix seen with any strides, so that its transpose is the same memory.
struct Matrix {
    const float *data;
    int n_rows, n_columns, row_stride, column_stride;

    Matrix transposed() const { return {data, n_columns, n_rows, column_stride, row_stride}; }
    Matrix from_row(int row) const {
        return {data + row * row_stride, n_rows - row, n_columns, row_stride, column_stride};
    }
};

// A number that a lambda knows when it is compiled.
template <int N> struct Count {
    static constexpr int n = N;
};

// Calls body(first row, Count of rows) until n rows are done. What a block leaves is in the nearest cache when the same
// call goes on with it.
template <class Body> INLINE void by_block(int n, const Body &body) {
    int row = 0;
    for (; row + BLOCK <= n; row += BLOCK) body(row, Count<BLOCK>{});
    if (n - row == 3) body(row, Count<3>{});
    if (n - row == 2) body(row, Count<2>{});
    if (n - row == 1) body(row, Count<1>{});
}

// out = K rows of m in + bias (which may be null).
template <int K> INLINE void multiply_block(const Matrix &m, int row, const float *bias, const Row *in, Row *out) {
    vf total[K][V];
    for (int k = 0; k < K; k++)
        for (int v = 0; v < V; v++) total[k][v] = bias ? splat(bias[row + k]) : vf{};
    const float *entry = m.data + row * m.row_stride;
    for (int i = 0; i < m.n_columns; i++, entry += m.column_stride)
        for (int k = 0; k < K; k++) {
            const float weight = entry[k * m.row_stride];
            for (int v = 0; v < V; v++) total[k][v] += weight * in[i].v[v];
        }
    for (int k = 0; k < K; k++)
        for (int v = 0; v < V; v++) out[k].v[v] = total[k][v];
}

// out = m in + bias.
static void multiply(const Matrix &m, const float *bias, const Row *in, Row *out) {
    by_block(m.n_rows, [&](int row, auto rows) INLINED { multiply_block<rows.n>(m, row, bias, in, out + row); });
}

// Exchanges rows and columns of W vectors: log2 W rounds of interleaving the first half of the rows with the second.
INLINE void transpose_square(vf *square) {
    for (int round = 1; round < W; round *= 2) {
        vf mixed[W];
        for (int k = 0; k < W / 2; k++) {
            Pair pair = interleave(square[k], square[k + W / 2]);
            mixed[2 * k] = pair.first;
            mixed[2 * k + 1] = pair.second;
        }
        memcpy(square, mixed, sizeof mixed);
    }
}

// Points as rows: transposed[p * stride + k] = rows[k][p], zero for k from n on.
static void transpose(const Row *rows, int n, int stride, float *transposed) {
    for (int k = 0; k < stride; k += W)
        for (int v = 0; v < V; v++) {
            vf square[W];
            for (int j = 0; j < W; j++) square[j] = k + j < n ? rows[k + j].v[v] : vf{};
            transpose_square(square);
            for (int j = 0; j < W; j++) store(transposed + (v * W + j) * stride + k, square[j]);
        }
}

template <int K, int B>
INLINE void outer_block(const Row *left, const float *right, int stride, float *sums) {
    vf total[K][B];
    for (int k = 0; k < K; k++)
        for (int b = 0; b < B; b++) total[k][b] = vf{};
    const float *factor = (const float *)left;
    for (int p = 0; p < TILE; p++)
        for (int k = 0; k < K; k++)
            for (int b = 0; b < B; b++) total[k][b] += factor[k * TILE + p] * load(right + p * stride + b * W);
    for (int k = 0; k < K; k++)
        for (int b = 0; b < B; b++) {
            float *sum = sums + k * stride + b * W;
            store(sum, load(sum) + total[k][b]);
        }
}

template <int B> static void outer_columns(const Row *left, int n, const float *right, int stride, float *sums) {
    by_block(n, [&](int row, auto rows) INLINED {
        outer_block<rows.n, B>(left + row, right, stride, sums + row * stride);
    });
}

// sums[n, stride] += left right^T over the points of the tile; `right` is transposed and `stride` a multiple of W.
static void add_outer(const Row *left, int n, const float *right, int stride, float *sums) {
    int column = 0;
    for (; column + 4 * W <= stride; column += 4 * W) outer_columns<4>(left, n, right + column, stride, sums + column);
    const int n_left = (stride - column) / W;
    if (n_left == 3) outer_columns<3>(left, n, right + column, stride, sums + column);
    if (n_left == 2) outer_columns<2>(left, n, right + column, stride, sums + column);
    if (n_left == 1) outer_columns<1>(left, n, right + column, stride, sums + column);
}

// sums[n] += the vectors of each row.
static void add_vectors(const Row *rows, int n, vf *sums) {
    for (int k = 0; k < n; k++)
        for (int v = 0; v < V; v++) sums[k] += rows[k].v[v];
}
