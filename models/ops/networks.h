// Multilayer perceptrons on tiles, forwards and backwards, with the closed-form gradient of their first output.
//
// With a_0 the inputs, z_l = W_l a_l + b_l and a_(l+1) = phi(z_l), the gradient of output 0 by the inputs is the
// reverse pass tau_H = row 0 of W_H, sigma_l = phi'(z_l) tau_(l+1), tau_l = W_l^T sigma_l. Its own backward, for an
// upstream gradient u by it, is a forward tangent t_0 = J u, q_l = W_l t_l, t_(l+1) = phi'(z_l) q_l, folded into the
// usual reverse pass:
//   d z_l = phi' d a_(l+1) + phi'' q_l tau_(l+1),   d W_l = d z_l a_l^T + sigma_l t_l^T.
// Nothing is kept between the passes: what a tile's forward pass knew is computed again from its inputs, which costs
// less than writing it to memory and reading it back.
#pragma once
#include <stdlib.h>

#include "tiles.h"

constexpr int MOST_LAYERS = 5, MOST_OUTPUTS = 64;

struct Network {
    int32_t n_layers, activation, output_activation;
    int32_t first_stride;             // columns of the first weight in memory, of which widths[0] are used
    int32_t widths[MOST_LAYERS + 1];  // inputs, hidden layers, outputs
    const float *weights[MOST_LAYERS], *biases[MOST_LAYERS];  // biases may be null

    int n_hidden() const { return n_layers - 1; }
    int stride(int l) const { return l ? widths[l] : first_stride; }
    Matrix weight(int l) const { return {weights[l], widths[l + 1], widths[l], stride(l), 1}; }
    int widest() const {
        int n = 0;
        for (int l = 0; l <= n_layers; l++) n = widths[l] > n ? widths[l] : n;
        return n;
    }
};

// What a field adds to a network: its inputs are n_xyz rows 2 x - 1, then n_features rows with a Jacobian by tile.
struct Position {
    int32_t n_xyz, n_features;
    const float *jacobian;

    void load_jacobian(int feature, i64 i, Row *out) const {
        memcpy(out, jacobian + Order::by_tile(3 * n_features).at(3 * feature, i), 3 * sizeof(Row));
    }
};

// Hands out rows of somebody else's memory; a copy starts where the original stood.
struct Arena {
    char *next;

    Row *rows(int n) {
        Row *first = (Row *)next;
        next += n * sizeof(Row);
        return first;
    }
};

// Memory of one thread, aligned for vectors and zero: padding is multiplied too and must hold no subnormals.
struct Scratch {
    void *memory = nullptr;

    explicit Scratch(size_t size) {
        if (posix_memalign(&memory, 64, size)) abort();
        memset(memory, 0, size);
    }
    ~Scratch() { free(memory); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    Arena arena() const { return {(char *)memory}; }
};

static void apply_output(int activation, int n, Row *rows) {
    if (activation == NONE) return;
    for (int k = 0; k < n; k++)
        for (vf &z : rows[k].v) z = activation == RELU ? larger(vf{}, z) : sigmoid(z).value;
}

// Multiplies d by the slope of the output activation, told from the outputs y.
static void apply_output_slope(int activation, int n, const Row *y, Row *d) {
    for (int k = 0; k < n; k++)
        for (int v = 0; v < V; v++) {
            const vf value = y[k].v[v];
            if (activation == RELU) d[k].v[v] = value > 0.f ? d[k].v[v] : vf{};
            if (activation == SIGMOID) d[k].v[v] *= value * (1.f - value);
        }
}

// The gradient by position, J^T tau, and 2 tau for the rows 2 x - 1.
static void pull_back(const Position &position, const Row *tau, i64 i, Row *gradient) {
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < V; v++) gradient[c].v[v] = position.n_xyz ? 2.f * tau[c].v[v] : vf{};
    for (int f = 0; f < position.n_features; f++) {
        Row j[3];
        position.load_jacobian(f, i, j);
        for (int c = 0; c < 3; c++)
            for (int v = 0; v < V; v++) gradient[c].v[v] += j[c].v[v] * tau[position.n_xyz + f].v[v];
    }
}

// The tangent of the inputs for a displacement u of the position.
static void push_forward(const Position &position, const Row *u, i64 i, Row *t) {
    for (int c = 0; c < position.n_xyz; c++)
        for (int v = 0; v < V; v++) t[c].v[v] = 2.f * u[c].v[v];
    for (int f = 0; f < position.n_features; f++) {
        Row j[3];
        position.load_jacobian(f, i, j);
        for (int v = 0; v < V; v++)
            t[position.n_xyz + f].v[v] = j[0].v[v] * u[0].v[v] + j[1].v[v] * u[1].v[v] + j[2].v[v] * u[2].v[v];
    }
}

struct Forward {
    const float *inputs;
    float *outputs, *gradient;  // the gradient only of a field
};

static size_t forward_scratch(const Network &net) {
    return sizeof(Row) * ((2 + net.n_hidden()) * net.widest() + 3);
}

template <int ACTIVATION, bool WITH_GRADIENT>
static void forward_tile(const Network &net, const Position &position, const Forward &io, i64 N, i64 i, Arena arena) {
    const int last = net.n_hidden(), widest = net.widest();
    Row *a = arena.rows(widest), *z = arena.rows(widest), *slopes = arena.rows(last * widest);
    load_rows(a, net.widths[0], io.inputs, N, i);
    for (int l = 0; l < last; l++) {
        multiply(net.weight(l), net.biases[l], a, z);
        for (int k = 0; k < net.widths[l + 1]; k++)
            for (int v = 0; v < V; v++) {
                Activated y = activate<ACTIVATION>(z[k].v[v]);
                a[k].v[v] = y.value;
                if (WITH_GRADIENT) slopes[l * widest + k].v[v] = y.slope;
            }
    }
    multiply(net.weight(last), net.biases[last], a, z);
    apply_output(net.output_activation, net.widths[last + 1], z);
    store_rows(z, net.widths[last + 1], io.outputs, N, i);
    if (!WITH_GRADIENT) return;

    Row *tau = a, *sigma = z;
    fill_rows(net.widths[last], net.weights[last], tau);
    for (int l = last - 1; l >= 0; l--) {
        for (int k = 0; k < net.widths[l + 1]; k++)
            for (int v = 0; v < V; v++) sigma[k].v[v] = slopes[l * widest + k].v[v] * tau[k].v[v];
        multiply(net.weight(l).transposed(), nullptr, sigma, tau);
    }
    Row *gradient = arena.rows(3);
    pull_back(position, tau, i, gradient);
    store_rows(gradient, 3, io.gradient, N, i);
}

// Sums of one thread for the gradients by weights and biases.
struct WeightSums {
    float *weights[MOST_LAYERS];  // rows of whole vectors, an output or an input of the layer each: what pads less
    vf *biases[MOST_LAYERS];      // a vector for each
    vf *first_row;                // of the last weight: what the gradient of output 0 adds to it, a vector for each

    static int padded(int n) { return (n + W - 1) / W * W; }
    static bool is_by_output(const Network &net, int l) {
        return net.widths[l + 1] * padded(net.widths[l]) <= net.widths[l] * padded(net.widths[l + 1]);
    }
    static int n_rows(const Network &net, int l) { return net.widths[is_by_output(net, l) ? l + 1 : l]; }
    static int stride(const Network &net, int l) { return padded(net.widths[is_by_output(net, l) ? l : l + 1]); }
    static size_t count(const Network &net) {
        size_t n = net.widths[net.n_hidden()] * W;
        for (int l = 0; l < net.n_layers; l++) n += n_rows(net, l) * stride(net, l) + net.widths[l + 1] * W;
        return n;
    }
    WeightSums(const Network &net, float *memory) {
        for (int l = 0; l < net.n_layers; l++) {
            weights[l] = memory;
            memory += n_rows(net, l) * stride(net, l);
            biases[l] = (vf *)memory;
            memory += net.widths[l + 1] * W;
        }
        first_row = (vf *)memory;
    }
    void add_to(const Network &net, float *const *d_weights, float *const *d_biases) const {
        for (int l = 0; l < net.n_layers; l++) {
            const bool by_output = is_by_output(net, l);
            const int n = stride(net, l);
            for (int o = 0; o < net.widths[l + 1]; o++) {
                for (int k = 0; k < net.widths[l]; k++)
                    d_weights[l][o * net.stride(l) + k] += weights[l][by_output ? o * n + k : k * n + o];
                if (d_biases[l]) d_biases[l][o] += sum(biases[l][o]);
            }
        }
        const int last = net.n_hidden();
        for (int k = 0; k < net.widths[last]; k++) d_weights[last][k] += sum(first_row[k]);
    }
    // Adds d a^T to the sums for the weight of layer l.
    void add_layer(const Network &net, int l, const Row *d, const Row *a, float *transposed) const {
        const bool by_output = is_by_output(net, l);
        const Row *left = by_output ? d : a, *right = by_output ? a : d;
        transpose(right, net.widths[by_output ? l : l + 1], stride(net, l), transposed);
        add_outer(left, n_rows(net, l), transposed, stride(net, l), weights[l]);
    }
};

struct Backward {
    const float *inputs, *outputs;
    const float *d_outputs, *d_gradient;  // upstream; d_gradient only of a field
    float *d_inputs;                      // may be null; rows from first_input on
    int32_t first_input;
    float *feature_tau;  // the gradient of output 0 by the features, of a field
};

static size_t backward_scratch(const Network &net) {
    return sizeof(Row) * (4 + 4 * net.n_layers) * net.widest() + sizeof(float) * TILE * (net.widest() + W);
}

// What a tile's forward pass knew, layer by layer: inputs a_l and slopes phi'(z_l), and in a field with gradient the
// tangents t_l and bends phi''(z_l) q_l.
struct Recalled {
    Row *a[MOST_LAYERS], *t[MOST_LAYERS], *slope[MOST_LAYERS], *bend[MOST_LAYERS];
};

template <int ACTIVATION, bool WITH_GRADIENT>
static void recall(const Network &net, const Position &position, const Backward &io, i64 N, i64 i,
                   const Recalled &known) {
    load_rows(known.a[0], net.widths[0], io.inputs, N, i);
    if (WITH_GRADIENT) {
        Row u[3];
        load_rows(u, 3, io.d_gradient, N, i);
        push_forward(position, u, i, known.t[0]);
    }
    for (int l = 0; l < net.n_hidden(); l++) {
        by_block(net.widths[l + 1], [&](int row, auto rows) INLINED {
            Row z[rows.n], q[rows.n];
            multiply_block<rows.n>(net.weight(l), row, net.biases[l], known.a[l], z);
            if (WITH_GRADIENT) multiply_block<rows.n>(net.weight(l), row, nullptr, known.t[l], q);
            for (int k = 0; k < rows.n; k++)
                for (int v = 0; v < V; v++) {
                    Activated y = activate<ACTIVATION>(z[k].v[v]);
                    known.a[l + 1][row + k].v[v] = y.value;
                    known.slope[l][row + k].v[v] = y.slope;
                    if (!WITH_GRADIENT) continue;
                    known.t[l + 1][row + k].v[v] = y.slope * q[k].v[v];
                    if (ACTIVATION != RELU) known.bend[l][row + k].v[v] = y.curvature * q[k].v[v];
                }
        });
    }
}

static void swap(Row *&a, Row *&b) {
    Row *was_a = a;
    a = b;
    b = was_a;
}

template <int ACTIVATION, bool WITH_GRADIENT>
static void backward_tile(const Network &net, const Position &position, const Backward &io, i64 N, i64 i, Arena arena,
                          const WeightSums &sums) {
    const int last = net.n_hidden(), widest = net.widest();
    Row *d = arena.rows(widest), *d_before = arena.rows(widest);  // the gradient by z_l and by z_(l-1)
    Row *sigma = arena.rows(widest), *sigma_before = arena.rows(widest);
    Recalled known;
    for (int l = 0; l <= last; l++) {
        known.a[l] = arena.rows(widest), known.t[l] = arena.rows(widest);
        known.slope[l] = arena.rows(widest), known.bend[l] = arena.rows(widest);
    }
    float *transposed = (float *)arena.next;
    recall<ACTIVATION, WITH_GRADIENT>(net, position, io, N, i, known);

    load_rows(d, net.widths[last + 1], io.d_outputs, N, i);
    if (net.output_activation != NONE) {
        load_rows(d_before, net.widths[last + 1], io.outputs, N, i);
        apply_output_slope(net.output_activation, net.widths[last + 1], d_before, d);
    }
    if (WITH_GRADIENT) add_vectors(known.t[last], net.widths[last], sums.first_row);
    for (int l = last;; l--) {
        sums.add_layer(net, l, d, known.a[l], transposed);
        add_vectors(d, net.widths[l + 1], sums.biases[l]);
        if (WITH_GRADIENT && l < last) sums.add_layer(net, l, sigma, known.t[l], transposed);
        if (l == 0) break;

        const Matrix back = net.weight(l).transposed();
        const Row *slope = known.slope[l - 1], *bend = known.bend[l - 1];
        by_block(back.n_rows, [&](int row, auto rows) INLINED {
            Row d_a[rows.n], tau[rows.n];
            multiply_block<rows.n>(back, row, nullptr, d, d_a);
            if (WITH_GRADIENT && l < last) multiply_block<rows.n>(back, row, nullptr, sigma, tau);
            if (WITH_GRADIENT && l == last) fill_rows(rows.n, net.weights[last] + row, tau);
            for (int k = 0; k < rows.n; k++)
                for (int v = 0; v < V; v++) {
                    vf d_z = slope[row + k].v[v] * d_a[k].v[v];
                    if (WITH_GRADIENT) sigma_before[row + k].v[v] = slope[row + k].v[v] * tau[k].v[v];
                    if (WITH_GRADIENT && ACTIVATION != RELU) d_z += bend[row + k].v[v] * tau[k].v[v];
                    d_before[row + k].v[v] = d_z;
                }
        });
        swap(d, d_before);
        swap(sigma, sigma_before);
    }
    const Matrix back = net.weight(0).transposed();
    if (WITH_GRADIENT) {
        Row *tau = sigma_before;
        if (last) multiply(back.from_row(position.n_xyz), nullptr, sigma, tau);
        else fill_rows(position.n_features, net.weights[0] + position.n_xyz, tau);
        store_rows(tau, position.n_features, io.feature_tau, N, i);
    }
    if (!io.d_inputs) return;
    multiply(back.from_row(io.first_input), nullptr, d, d_before);
    store_rows(d_before, net.widths[0] - io.first_input, io.d_inputs, N, i);
}
