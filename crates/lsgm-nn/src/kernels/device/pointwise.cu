// Functions of single elements, numbered as `Function` of the host is.

#define RELU 0
#define SILU 1
#define GELU 2
#define ELU 3
#define SOFTPLUS 4
#define SIGMOID 5

DEVICE float value(int function, float x) {
    switch (function) {
    case RELU:
        return x <= 0.0f ? 0.0f : x;
    case SILU:
        return x * sigmoid(x);
    case GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case ELU:
        return x > 0.0f ? x : expm1f(x);
    case SOFTPLUS:
        return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    default:
        return sigmoid(x);
    }
}

DEVICE float slope(int function, float x) {
    switch (function) {
    case RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case SILU:
        return slope_of_silu(x);
    case GELU:
        return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * expf(-0.5f * x * x);
    case ELU:
        return x > 0.0f ? 1.0f : expf(x);
    case SOFTPLUS:
        return sigmoid(x);
    default: {
        float y = sigmoid(x);
        return y * (1.0f - y);
    }
    }
}

// Elements of a thread, which are all read before any is written.
#define EACH 8

DEVICE long long element_of_turn(int turn) {
    return (long long)blockIdx.x * (EACH * THREADS) + turn * THREADS + threadIdx.x;
}

KERNEL apply(IN(element) x, OUT(element) y, long long n, int function) {
    float values[EACH];
    for (int turn = 0; turn < EACH; turn++) {
        long long i = element_of_turn(turn);
        values[turn] = i < n ? load(x[i]) : 0.0f;
    }
    for (int turn = 0; turn < EACH; turn++) {
        long long i = element_of_turn(turn);
        if (i < n) {
            y[i] = store(value(function, values[turn]));
        }
    }
}

KERNEL apply_gradient(IN(element) x, IN(element) gy, OUT(element) dx, long long n, int function) {
    float values[EACH], slopes[EACH];
    for (int turn = 0; turn < EACH; turn++) {
        long long i = element_of_turn(turn);
        values[turn] = i < n ? load(x[i]) : 0.0f;
        slopes[turn] = i < n ? load(gy[i]) : 0.0f;
    }
    for (int turn = 0; turn < EACH; turn++) {
        long long i = element_of_turn(turn);
        if (i < n) {
            dx[i] = store(slopes[turn] * slope(function, values[turn]));
        }
    }
}
